"""Prints problems for an SMT solver: queens, a factorisation in bit vectors, arrays, and pigeons that do not fit."""


def queens(size):
    names = [f"q{row}" for row in range(size)]
    yield from (f"(declare-const {name} Int)\n(assert (and (<= 0 {name}) (< {name} {size})))" for name in names)
    for low in range(size):
        for high in range(low + 1, size):
            a, b, gap = names[low], names[high], high - low
            yield f"(assert (and (distinct {a} {b}) (distinct (- {a} {b}) {gap}) (distinct (- {b} {a}) {gap})))"
    yield f"(check-sat)\n(get-value ({' '.join(names)}))"


def factors(product, bits):
    yield f"(declare-const a (_ BitVec {bits}))\n(declare-const b (_ BitVec {bits}))"
    yield f"(assert (= (bvmul a b) (_ bv{product} {bits})))"
    for name in "ab":
        yield f"(assert (bvult {name} (_ bv{1 << bits // 2} {bits})))\n(assert (bvugt {name} (_ bv1 {bits})))"
    yield "(assert (bvule a b))\n(check-sat)\n(get-value (a b))"


def arrays(count):
    yield "(declare-const memory (Array Int Int))"
    term = "memory"
    for step in range(count):
        yield f"(declare-const i{step} Int)"
        term = f"(store {term} i{step} (+ {step} (select {term if step < 4 else 'memory'} i{step // 2})))"
    yield f"(assert (distinct (select {term} 0) (select memory 0)))"
    yield f"(assert (> (+ {' '.join(f'(select {term} {at})' for at in range(6))}) 1000))"
    yield "(check-sat)"


def pigeons(holes):
    for pigeon in range(holes + 1):
        names = [f"p{pigeon}_{hole}" for hole in range(holes)]
        yield from (f"(declare-const {name} Bool)" for name in names)
        yield f"(assert (or {' '.join(names)}))"
    for hole in range(holes):
        for low in range(holes + 1):
            for high in range(low + 1, holes + 1):
                yield f"(assert (or (not p{low}_{hole}) (not p{high}_{hole})))"
    yield "(check-sat)"


for problem in queens(20), factors(30011 * 50021, 34), arrays(200), pigeons(7):
    print("(push)", *problem, "(pop)", sep="\n")
