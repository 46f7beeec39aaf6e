//! What a compiler does to memory: a function at a time becomes a graph of small nodes, which passes replace and extend,
//! and which goes away node by node while the next is built; what is known about names grows until the end.

use super::text::{FixedHasher, mix, mix_bytes, word};
use super::{Outcome, Parameters, Shown, Workload};
use crate::random::Random;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::thread;

/// Builds graphs of small nodes, runs passes over them, and releases them slowly.
pub const COMPILE: Workload = Workload {
    name: "compile",
    stands_for: "graphs of nodes of 16 to 200 B that passes replace, and a table of symbols that grows: a compiler",
    operations: "nodes",
    threads_per_core: 1,
    shown: Shown::RowAndMemory,
    run,
};

/// Functions that one thread compiles at full length.
const FUNCTIONS: usize = 600;
/// Nodes of a function before the passes.
const NODES: (usize, usize) = (300, 4_000);
/// Of 100 names: how many are known outside of their function.
const GLOBAL_NAMES: usize = 30;
/// Functions whose nodes are still there while others are built.
const RETIRED: usize = 4;

/// A node's number in its function. The operands of an operation or a call come before it.
type Index = u32;

enum Node {
    Constant(Box<Constant>),
    Name(Box<Name>),
    Operation(Box<Operation>),
    Call(Box<Call>),
    Block(Box<Block>),
}

struct Constant {
    value: u64,
    bits: u8,
}

struct Name {
    text: String,
    version: u32,
}

struct Operation {
    operator: u8,
    operands: [Index; 2],
    line: u32,
    /// Least and greatest result, as far as it is known.
    range: (u64, u64),
    note: Option<Box<str>>,
}

struct Call {
    symbol: String,
    arguments: Vec<Index>,
    /// Registers that it changes.
    clobbered: [u64; 8],
}

struct Block {
    label: String,
    statements: Vec<Index>,
    live: Vec<u64>,
    /// Distances to other blocks.
    distances: [u32; 24],
}

/// What is known about a name outside of its function.
#[derive(Default)]
struct Symbol {
    mangled: String,
    /// Functions that name it.
    references: Vec<u32>,
}

fn run(parameters: &Parameters) -> Outcome {
    let functions = parameters.scaled(FUNCTIONS);
    let compilers: Vec<Compiler> = thread::scope(|scope| {
        let workers: Vec<_> = (0..parameters.threads as u64)
            .map(|index| {
                let mut compiler = Compiler::new(Random::new(parameters.seed.wrapping_add(index)));
                scope.spawn(move || {
                    (0..functions as u32).for_each(|function| compiler.compile(function));
                    compiler
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let checksum = compilers.iter().fold(0, |sum, compiler| mix(mix(sum, compiler.checksum), compiler.symbols_sum()));
    let operations = compilers.iter().map(|compiler| compiler.nodes).sum();
    Outcome { kept: Some(Box::new(compilers)), ..Outcome::new(operations, checksum) }
}

/// One thread's compiler.
struct Compiler {
    random: Random,
    symbols: HashMap<String, Symbol, FixedHasher>,
    /// Names of symbols, for calls.
    names: Vec<String>,
    /// Functions that are done, the oldest first.
    retired: VecDeque<Vec<Node>>,
    checksum: u64,
    nodes: u64,
}

impl Compiler {
    fn new(random: Random) -> Self {
        let names = vec!["main".to_owned()];
        Self { random, symbols: HashMap::default(), names, retired: VecDeque::new(), checksum: 0, nodes: 0 }
    }

    fn compile(&mut self, function: u32) {
        let mut nodes = self.build(function);
        self.fold_constants(&mut nodes);
        self.expand_calls(&mut nodes);
        rename(&mut nodes);
        let code = emit(&nodes);
        self.checksum = mix_bytes(self.checksum, code.as_bytes());
        self.nodes += nodes.len() as u64;
        self.retired.push_back(nodes);
        if self.retired.len() > RETIRED {
            self.retired.pop_front();
        }
    }

    /// Makes a function's nodes, and releases as many of the oldest function.
    fn build(&mut self, function: u32) -> Vec<Node> {
        let name = format!("{}::{}{function}", word(&mut self.random), word(&mut self.random));
        self.symbols.entry(name.clone()).or_default().mangled = format!("_ZN{}{name}E", name.len());
        self.names.push(name);
        let count = self.random.between(NODES.0, NODES.1);
        let mut nodes: Vec<Node> = Vec::new();
        let mut statements = Vec::new();
        while nodes.len() < count {
            let node = self.node(function, nodes.len(), &mut statements);
            nodes.push(node);
            if let Some(oldest) = self.retired.front_mut() {
                oldest.pop();
            }
        }
        nodes
    }

    /// The next node, when `count` have been made. `statements` wait for their block.
    fn node(&mut self, function: u32, count: usize, statements: &mut Vec<Index>) -> Node {
        let random = &mut self.random;
        // Operands are mostly near.
        let operand = |random: &mut Random| (count - 1 - random.below(count).min(random.below(12))) as Index;
        match if count == 0 { 0 } else { random.below(100) } {
            0..25 => Node::Constant(Box::new(Constant { value: random.number() >> 48, bits: 32 })),
            25..50 => {
                let text = word(random);
                if random.percent(GLOBAL_NAMES) {
                    self.symbols.entry(text.clone()).or_default().references.push(function);
                }
                Node::Name(Box::new(Name { text, version: 0 }))
            }
            50..80 => {
                statements.push(count as Index);
                Node::Operation(Box::new(Operation {
                    operator: random.below(4) as u8,
                    operands: [operand(random), operand(random)],
                    line: count as u32,
                    range: (0, u64::MAX),
                    note: random.percent(20).then(|| word(random).into_boxed_str()),
                }))
            }
            80..92 => {
                statements.push(count as Index);
                let symbol = self.names[random.below(self.names.len())].clone();
                self.symbols.entry(symbol.clone()).or_default().references.push(function);
                let arguments = (0..random.below(6)).map(|_| operand(random)).collect();
                Node::Call(Box::new(Call { symbol, arguments, clobbered: [random.number(); 8] }))
            }
            _ => {
                let label = format!("L{function}.{count}");
                let live = vec![random.number(); random.below(16)];
                let distances = [count as u32; 24];
                Node::Block(Box::new(Block { label, statements: std::mem::take(statements), live, distances }))
            }
        }
    }

    /// Replaces operations on constants by their result. Operands come first, so that one pass finds all.
    fn fold_constants(&mut self, nodes: &mut [Node]) {
        for index in 0..nodes.len() {
            let Node::Operation(operation) = &nodes[index] else { continue };
            let [Node::Constant(one), Node::Constant(other)] =
                operation.operands.map(|operand| &nodes[operand as usize])
            else {
                continue;
            };
            let value = calculate(operation.operator, one.value, other.value);
            nodes[index] = Node::Constant(Box::new(Constant { value, bits: one.bits.max(other.bits) }));
        }
    }

    /// Replaces a third of the calls by a block of new nodes, as if the called function were copied.
    fn expand_calls(&mut self, nodes: &mut Vec<Node>) {
        for index in 0..nodes.len() {
            if !matches!(nodes[index], Node::Call(_)) || !self.random.percent(33) {
                continue;
            }
            let first = nodes.len() as Index;
            let Node::Call(call) = &nodes[index] else { continue };
            let (label, arguments) = (format!("{}.copy{index}", call.symbol), call.arguments.clone());
            for &argument in &arguments {
                nodes.push(Node::Name(Box::new(Name { text: format!("argument{argument}"), version: 1 })));
            }
            let statements: Vec<Index> = (first..nodes.len() as Index).collect();
            let live = vec![u64::from(first); arguments.len()];
            nodes[index] = Node::Block(Box::new(Block { label, statements, live, distances: [first; 24] }));
        }
    }

    /// The order of the map does not count.
    fn symbols_sum(&self) -> u64 {
        self.symbols.iter().fold(0, |sum, (name, symbol)| {
            let part = mix_bytes(mix_bytes(0, name.as_bytes()), symbol.mangled.as_bytes());
            sum.wrapping_add(symbol.references.iter().fold(part, |part, &function| mix(part, u64::from(function))))
        })
    }
}

fn calculate(operator: u8, one: u64, other: u64) -> u64 {
    match operator {
        0 => one.wrapping_add(other),
        1 => one.wrapping_sub(other),
        2 => one.wrapping_mul(other),
        _ => one ^ other,
    }
}

/// Gives names the number of their users, which it lists first, and narrows ranges by what uses there are.
fn rename(nodes: &mut [Node]) {
    let mut users: Vec<Vec<Index>> = Vec::new();
    users.resize_with(nodes.len(), Vec::new);
    for (index, node) in nodes.iter().enumerate() {
        let operands = match node {
            Node::Operation(operation) => &operation.operands[..],
            Node::Call(call) => &call.arguments,
            Node::Block(block) => &block.statements,
            Node::Constant(_) | Node::Name(_) => &[],
        };
        operands.iter().for_each(|&operand| users[operand as usize].push(index as Index));
    }
    for (node, users) in nodes.iter_mut().zip(&users) {
        match node {
            Node::Name(name) if !users.is_empty() => {
                name.version += users.len() as u32;
                name.text = format!("{}.{}", name.text, name.version);
            }
            Node::Operation(operation) => {
                operation.range.1 >>= users.len() % 64;
                if users.is_empty() {
                    operation.note = Some(format!("unused since line {}", operation.line).into_boxed_str());
                }
            }
            Node::Block(block) => block.live.extend(users.iter().map(|&user| u64::from(user))),
            _ => {}
        }
    }
}

/// The code of a function.
fn emit(nodes: &[Node]) -> String {
    let mut code = String::new();
    for node in nodes {
        match node {
            Node::Constant(constant) => write!(code, "const {} i{}", constant.value, constant.bits),
            Node::Name(name) => write!(code, "load {}", name.text),
            Node::Operation(operation) => {
                let Operation { operator, operands: [one, other], range, note, .. } = &**operation;
                write!(code, "op{operator} %{one} %{other} <{} ;{}", range.1 - range.0, note.as_deref().unwrap_or(""))
            }
            Node::Call(call) => {
                write!(code, "call {} {} !{}", call.symbol, call.arguments.len(), call.clobbered[7] % 16)
            }
            Node::Block(block) => {
                let live = block.live.iter().fold(0, |sum, &live| mix(sum, live));
                write!(code, "{}: {} {live:x} {}", block.label, block.statements.len(), block.distances[23])
            }
        }
        .expect("a string takes everything");
        code.push('\n');
    }
    code
}

#[cfg(test)]
mod tests {
    use super::{COMPILE, Compiler, Constant, NODES, Node, Operation, emit};
    use crate::random::Random;
    use crate::workloads::Parameters;

    #[test]
    fn same_checksum_with_any_threads() {
        for threads in [1, 2, 5] {
            let run = |seed| (COMPILE.run)(&Parameters { scale: 0.01, threads, seed });
            let first = run(3);
            assert!(first.operations > (6 * NODES.0 * threads) as u64);
            assert_eq!(run(3).checksum, first.checksum);
            assert_ne!(run(99).checksum, first.checksum);
        }
    }

    #[test]
    fn constants_are_folded_through() {
        let constant = |value| Node::Constant(Box::new(Constant { value, bits: 32 }));
        let operation = |operator, operands| {
            Node::Operation(Box::new(Operation { operator, operands, line: 1, range: (0, u64::MAX), note: None }))
        };
        // (2 + 3) * 7
        let mut nodes = vec![constant(2), constant(3), operation(0, [0, 1]), constant(7), operation(2, [2, 3])];
        Compiler::new(Random::new(1)).fold_constants(&mut nodes);
        assert!(emit(&nodes).ends_with("const 35 i32\n"));
    }

    #[test]
    fn the_oldest_function_goes_while_the_next_is_built() {
        let mut compiler = Compiler::new(Random::new(1));
        compiler.compile(0);
        let (before, symbols) = (compiler.retired[0].len(), compiler.symbols.len());
        let next = compiler.build(1);
        assert_eq!(compiler.retired[0].len(), before.saturating_sub(next.len()));
        // Symbols stay.
        assert!(compiler.symbols.len() > symbols);
    }
}
