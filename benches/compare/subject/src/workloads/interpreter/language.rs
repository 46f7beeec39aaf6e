//! The language: its tree, its parser, and the evaluation. Programs are generated, so a wrong one is a panic.

use crate::workloads::text::FixedHasher;
use std::collections::HashMap;
use std::rc::Rc;

type Name = Rc<str>;

enum Node {
    Number(i64),
    Text(String),
    Name(Name),
    If(Box<Node>, Box<Node>, Box<Node>),
    Let(Name, Box<Node>, Box<Node>),
    Function(Rc<Function>),
    Builtin(Builtin, Vec<Node>),
    Call(Box<Node>, Vec<Node>),
}

/// What a definition or a `fn` is.
pub struct Function {
    parameters: Vec<Name>,
    body: Node,
}

#[derive(Clone, Copy)]
enum Builtin {
    Add,
    Subtract,
    Multiply,
    Less,
    Cons,
    Head,
    Tail,
    Empty,
    Concat,
    Length,
    Text,
}

/// The text that is left to parse.
struct Parser<'text> {
    rest: &'text str,
}

impl<'text> Parser<'text> {
    /// The next parenthesis, string (with its first quote), number or name.
    fn token(&mut self) -> &'text str {
        let text = self.rest.trim_start();
        let length = match text.as_bytes().first() {
            Some(b'(' | b')') => 1,
            Some(b'"') => 1 + text[1..].find('"').expect("strings are closed"),
            _ => text.find(|c: char| c.is_whitespace() || c == '(' || c == ')').unwrap_or(text.len()),
        };
        let token = &text[..length];
        // A string's last quote belongs to no token.
        let quote = usize::from(token.starts_with('"'));
        self.rest = &text[length + quote..];
        token
    }

    /// Goes past `token`, if it is the next.
    fn skip(&mut self, token: &str) -> bool {
        let rest = self.rest;
        let found = self.token() == token;
        if !found {
            self.rest = rest;
        }
        found
    }

    fn node(&mut self) -> Node {
        let token = self.token();
        if token != "(" {
            return match (token.strip_prefix('"'), token.parse()) {
                (Some(text), _) => Node::Text(text.to_owned()),
                (None, Ok(number)) => Node::Number(number),
                (None, Err(_)) => Node::Name(token.into()),
            };
        }
        let rest = self.rest;
        let head = self.token();
        if let Some(builtin) = builtin(head) {
            return Node::Builtin(builtin, self.nodes());
        }
        match head {
            "if" => {
                let node = Node::If(self.boxed(), self.boxed(), self.boxed());
                assert!(self.skip(")"), "three parts");
                node
            }
            "let" => {
                let node = Node::Let(self.token().into(), self.boxed(), self.boxed());
                assert!(self.skip(")"), "a name, its value, and what it is for");
                node
            }
            "fn" => Node::Function(Rc::new(self.function())),
            _ => {
                self.rest = rest;
                Node::Call(self.boxed(), self.nodes())
            }
        }
    }

    fn boxed(&mut self) -> Box<Node> {
        Box::new(self.node())
    }

    /// Parameters, body and a closing parenthesis.
    fn function(&mut self) -> Function {
        let mut parameters = Vec::new();
        assert!(self.skip("("), "parameters");
        while !self.skip(")") {
            parameters.push(self.token().into());
        }
        let body = self.node();
        assert!(self.skip(")"), "one body");
        Function { parameters, body }
    }

    /// Everything up to a closing parenthesis.
    fn nodes(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        while !self.skip(")") {
            nodes.push(self.node());
        }
        nodes
    }
}

fn builtin(name: &str) -> Option<Builtin> {
    Some(match name {
        "+" => Builtin::Add,
        "-" => Builtin::Subtract,
        "*" => Builtin::Multiply,
        "<" => Builtin::Less,
        "cons" => Builtin::Cons,
        "head" => Builtin::Head,
        "tail" => Builtin::Tail,
        "empty" => Builtin::Empty,
        "concat" => Builtin::Concat,
        "length" => Builtin::Length,
        "text" => Builtin::Text,
        _ => return None,
    })
}

/// A value. Clones of lists and closures share what they hold.
#[derive(Clone)]
pub enum Value {
    Number(i64),
    Text(String),
    List(Option<Rc<Pair>>),
    Closure(Rc<Function>, Scope),
}

/// A list that is not empty.
pub struct Pair {
    head: Value,
    tail: Value,
}

/// Names and their values, the innermost first.
pub type Scope = Option<Rc<Binding>>;

/// A name that stands for a value, where nothing inside has the same name.
pub struct Binding {
    name: Name,
    value: Value,
    outer: Scope,
}

impl Value {
    fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            _ => panic!("a number is expected"),
        }
    }

    fn pair(&self) -> Option<&Rc<Pair>> {
        match self {
            Self::List(pair) => pair.as_ref(),
            _ => panic!("a list is expected"),
        }
    }

    /// A number or a text, as a text.
    pub fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            _ => panic!("a number or a text is expected"),
        }
    }
}

/// A parsed program.
pub struct Program {
    functions: HashMap<Name, Rc<Function>, FixedHasher>,
    body: Node,
}

impl Program {
    /// Definitions, and the expression that is the program.
    pub fn parse(text: &str) -> Self {
        let mut parser = Parser { rest: text };
        let mut functions = HashMap::default();
        loop {
            let rest = parser.rest;
            if !(parser.skip("(") && parser.skip("define")) {
                parser.rest = rest;
                return Self { functions, body: parser.node() };
            }
            functions.insert(parser.token().into(), Rc::new(parser.function()));
        }
    }

    /// The value of the program.
    pub fn run(&self) -> Value {
        self.evaluate(&self.body, &None)
    }

    fn evaluate(&self, node: &Node, scope: &Scope) -> Value {
        match node {
            Node::Number(number) => Value::Number(*number),
            Node::Text(text) => Value::Text(text.clone()),
            Node::Name(name) => self.find(name, scope),
            Node::If(condition, yes, no) => {
                let branch = if self.evaluate(condition, scope).number() != 0 { yes } else { no };
                self.evaluate(branch, scope)
            }
            Node::Let(name, value, body) => {
                let value = self.evaluate(value, scope);
                self.evaluate(body, &Some(Rc::new(Binding { name: Rc::clone(name), value, outer: scope.clone() })))
            }
            Node::Function(function) => Value::Closure(Rc::clone(function), scope.clone()),
            Node::Builtin(builtin, operands) => {
                let operands: Vec<Value> = operands.iter().map(|operand| self.evaluate(operand, scope)).collect();
                apply(*builtin, &operands)
            }
            Node::Call(called, arguments) => {
                let Value::Closure(function, outer) = self.evaluate(called, scope) else {
                    panic!("a function is expected");
                };
                let arguments: Vec<Value> = arguments.iter().map(|argument| self.evaluate(argument, scope)).collect();
                let inner =
                    function.parameters.iter().zip(arguments).fold(outer, |outer, (name, value)| {
                        Some(Rc::new(Binding { name: Rc::clone(name), value, outer }))
                    });
                self.evaluate(&function.body, &inner)
            }
        }
    }

    fn find(&self, name: &Name, scope: &Scope) -> Value {
        let mut scope = scope;
        while let Some(binding) = scope {
            if binding.name == *name {
                return binding.value.clone();
            }
            scope = &binding.outer;
        }
        match self.functions.get(name) {
            Some(function) => Value::Closure(Rc::clone(function), None),
            None if &**name == "nil" => Value::List(None),
            None => panic!("{name} is not defined"),
        }
    }
}

fn apply(builtin: Builtin, operands: &[Value]) -> Value {
    match (builtin, operands) {
        (Builtin::Add, [one, other]) => Value::Number(one.number().wrapping_add(other.number())),
        (Builtin::Subtract, [one, other]) => Value::Number(one.number().wrapping_sub(other.number())),
        (Builtin::Multiply, [one, other]) => Value::Number(one.number().wrapping_mul(other.number())),
        (Builtin::Less, [one, other]) => Value::Number((one.number() < other.number()).into()),
        (Builtin::Cons, [head, tail]) => Value::List(Some(Rc::new(Pair { head: head.clone(), tail: tail.clone() }))),
        (Builtin::Head, [list]) => list.pair().expect("a list that is not empty").head.clone(),
        (Builtin::Tail, [list]) => list.pair().expect("a list that is not empty").tail.clone(),
        (Builtin::Empty, [list]) => Value::Number(list.pair().is_none().into()),
        (Builtin::Concat, [one, other]) => Value::Text(one.text() + &other.text()),
        (Builtin::Length, [text]) => Value::Number(text.text().len() as i64),
        (Builtin::Text, [value]) => Value::Text(value.text()),
        _ => panic!("operands are missing"),
    }
}
