//! Numbers of any length: each operation is a block or two, of 16 to 2,000 bytes, and most live for one more operation.

use super::text::{mix, mix_bytes};
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use num_bigint::{BigInt, BigUint};

/// Factorials, Fibonacci numbers, powers, digits of pi, and conversion from and to decimal.
pub const BIGNUM: Workload = Workload {
    name: "bignum",
    stands_for: "numbers of up to 2,000 bytes: factorials, powers modulo, digits of pi, decimal conversion (num-bigint)",
    operations: "results",
    threads_per_core: 0,
    shown: Shown::Row,
    run,
};

/// Rounds of all calculations at full length.
const ROUNDS: usize = 4_000;
/// Results of one round.
const RESULTS: u64 = 5;

fn run(parameters: &Parameters) -> Outcome {
    let rounds = parameters.scaled(ROUNDS);
    let mut random = Random::new(parameters.seed);
    let mut checksum = 0;
    for _ in 0..rounds {
        let product = factorial(random.between(100, 300) as u32);
        checksum = sum(checksum, &product);
        checksum = sum(checksum, &fibonacci(random.between(1_000, 10_000) as u64));

        let exponent = random_number(&mut random, 2);
        let modulus = random_number(&mut random, 8) + 1_u32;
        checksum = sum(checksum, &power(&random_number(&mut random, 8), &exponent, &modulus));

        let decimal = product.to_string();
        assert_eq!(decimal.parse::<BigUint>().as_ref(), Ok(&product), "what was written is read");
        checksum = mix_bytes(checksum, decimal.as_bytes());

        checksum = mix_bytes(checksum, &pi(random.between(20, 80)));
    }
    Outcome::new(rounds as u64 * RESULTS, checksum)
}

fn sum(sum: u64, number: &BigUint) -> u64 {
    number.iter_u64_digits().fold(sum, mix)
}

/// A number of `words` times 32 bits.
fn random_number(random: &mut Random, words: usize) -> BigUint {
    BigUint::new((0..words).map(|_| random.number() as u32).collect())
}

fn factorial(n: u32) -> BigUint {
    /// Halves, so that factors are of a similar length.
    fn product(first: u32, last: u32) -> BigUint {
        if first >= last {
            return BigUint::from(first);
        }
        let middle = first.midpoint(last);
        product(first, middle) * product(middle + 1, last)
    }
    product(1, n.max(1))
}

/// By doubling: F(2n) = F(n) (2 F(n+1) - F(n)), F(2n+1) = F(n)^2 + F(n+1)^2.
fn fibonacci(n: u64) -> BigUint {
    let (mut this, mut next) = (BigUint::ZERO, BigUint::from(1_u32));
    for bit in (0..u64::BITS - n.leading_zeros()).rev() {
        let doubled = &this * (&next * 2_u32 - &this);
        let after = &this * &this + &next * &next;
        (this, next) = if n >> bit & 1 == 1 {
            let sum = &doubled + &after;
            (after, sum)
        } else {
            (doubled, after)
        };
    }
    this
}

/// By squaring, with a division after each step: the library's own would reuse its buffers.
fn power(base: &BigUint, exponent: &BigUint, modulus: &BigUint) -> BigUint {
    let mut result = BigUint::from(1_u32) % modulus;
    for bit in (0..exponent.bits()).rev() {
        result = &result * &result % modulus;
        if exponent.bit(bit) {
            result = &result * base % modulus;
        }
    }
    result
}

/// The first digits of pi, one after the other (Gibbons, "Unbounded spigot algorithms for the digits of pi", 2006).
fn pi(count: usize) -> Vec<u8> {
    let mut digits = Vec::with_capacity(count);
    let (mut q, mut r, mut t) = (BigInt::from(1), BigInt::ZERO, BigInt::from(1));
    let (mut k, mut l, mut n) = (1_u32, 3_u32, BigInt::from(3));
    while digits.len() < count {
        if &q * 4 + &r - &t < &n * &t {
            digits.push(b'0' + u8::try_from(&n).expect("a digit"));
            let rest = (&r - &n * &t) * 10;
            n = (&q * 3 + &r) * 10 / &t - &n * 10;
            q *= 10;
            r = rest;
        } else {
            let rest = (&q * 2 + &r) * l;
            n = (&q * (7 * k) + 2 + &r * l) / (&t * l);
            q *= k;
            t *= l;
            l += 2;
            k += 1;
            r = rest;
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::{BIGNUM, factorial, fibonacci, pi, power, random_number};
    use crate::random::Random;
    use crate::workloads::Parameters;

    #[test]
    fn known_values() {
        assert_eq!(factorial(25).to_string(), "15511210043330985984000000");
        assert_eq!(fibonacci(0).to_string(), "0");
        assert_eq!(fibonacci(100).to_string(), "354224848179261915075");
        assert_eq!(pi(30), b"314159265358979323846264338327");
        let mut random = Random::new(1);
        for _ in 0..20 {
            let [base, exponent, modulus] = [8, 2, 6].map(|words| random_number(&mut random, words));
            assert_eq!(power(&base, &exponent, &modulus), base.modpow(&exponent, &modulus));
        }
    }

    #[test]
    fn same_checksum_twice() {
        let run = |scale, threads, seed| (BIGNUM.run)(&Parameters { scale, threads, seed });
        let first = run(0.002, 1, 3);
        assert_eq!(first.operations, 40);
        assert_eq!(run(0.002, 5, 3).checksum, first.checksum);
        assert_ne!(run(0.002, 1, 4).checksum, first.checksum);
        assert_eq!(run(0.0, 1, 3).operations, 5);
    }
}
