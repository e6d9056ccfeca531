//! The syntax tree, and how it prints: error texts quote the node they are about.

use std::fmt;

/// A number as written, with what it can be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Number {
    pub text: String,
    pub int: Option<i64>,
    pub float: Option<f64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub pos: usize,
    pub expr: Expr,
}

/// An operand of a command.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Dot,
    Nil,
    Bool(bool),
    Number(Number),
    /// The value, and the literal as written.
    Str(String, String),
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A.B`: first the name with its `$`, then fields.
    Variable(Vec<String>),
    /// `(pipeline).A.B`, `func.A`.
    Chain(Box<Node>, Vec<String>),
    Identifier(String),
    Pipe(Box<Pipe>),
}

#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub pos: usize,
    pub args: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    pub pos: usize,
    /// `$x = …` instead of `$x := …`.
    pub assign: bool,
    pub decl: Vec<String>,
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BranchKind {
    If,
    Range,
    With,
}

#[derive(Debug, Clone)]
pub(crate) enum Item {
    Text(String),
    Action(Pipe),
    Branch { kind: BranchKind, pipe: Pipe, body: List, otherwise: Option<List> },
    Break,
    Continue,
    Template { pos: usize, name: String, pipe: Option<Pipe> },
}

pub(crate) type List = Vec<Item>;

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.expr {
            Expr::Dot => f.write_str("."),
            Expr::Nil => f.write_str("nil"),
            Expr::Bool(value) => write!(f, "{value}"),
            Expr::Number(number) => f.write_str(&number.text),
            Expr::Str(_, literal) => f.write_str(literal),
            Expr::Field(names) => names.iter().try_for_each(|name| write!(f, ".{name}")),
            Expr::Variable(names) => f.write_str(&names.join(".")),
            Expr::Chain(node, names) => {
                match node.expr {
                    Expr::Pipe(_) => write!(f, "({node})")?,
                    _ => write!(f, "{node}")?,
                }
                names.iter().try_for_each(|name| write!(f, ".{name}"))
            }
            Expr::Identifier(name) => f.write_str(name),
            Expr::Pipe(pipe) => write!(f, "{pipe}"),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, arg) in self.args.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            match arg.expr {
                Expr::Pipe(_) => write!(f, "({arg})")?,
                _ => write!(f, "{arg}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.decl.is_empty() {
            write!(f, "{} {} ", self.decl.join(", "), if self.assign { "=" } else { ":=" })?;
        }
        for (index, command) in self.commands.iter().enumerate() {
            if index > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{command}")?;
        }
        Ok(())
    }
}
