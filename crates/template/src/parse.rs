//! Tokens into a tree.

use std::collections::BTreeMap;

use crate::Error;
use crate::lex::{Kind, Token, lex};
use crate::node::{BranchKind, Command, Expr, Item, List, Node, Number, Pipe};
use crate::quote::{quote, unquote};

/// How deep actions and parentheses may nest.
const MAX_DEPTH: usize = 200;

struct Parser<'t> {
    name: &'t str,
    tokens: Vec<Token>,
    at: usize,
    /// Names of the variables in scope.
    vars: Vec<String>,
    range_depth: usize,
    depth: usize,
    trees: BTreeMap<String, List>,
}

/// How a list of items ended.
enum Ended {
    Eof,
    End,
    /// The `else` token has been read; what follows it has not.
    Else,
}

/// Parses `text` and returns all trees by name; the unnamed main one under `name`.
pub(crate) fn parse(name: &str, text: &str) -> Result<BTreeMap<String, List>, Error> {
    let mut parser = Parser {
        name,
        tokens: lex(text),
        at: 0,
        vars: vec!["$".to_owned()],
        range_depth: 0,
        depth: 0,
        trees: BTreeMap::new(),
    };
    let (list, end) = parser.list(true)?;
    match end {
        Ended::Eof => {}
        Ended::End => return Err(parser.error("unexpected {{end}}")),
        Ended::Else => return Err(parser.error("unexpected {{else}}")),
    }
    // An empty main template does not replace one that the text defines under the same name.
    let empty = list.iter().all(|item| matches!(item, Item::Text(text) if text.trim().is_empty()));
    if !empty || !parser.trees.contains_key(name) {
        parser.trees.insert(name.to_owned(), list);
    }
    Ok(parser.trees)
}

impl Parser<'_> {
    fn error(&self, text: &str) -> Error {
        let line = self.tokens[self.at.saturating_sub(1).min(self.tokens.len() - 1)].line;
        Error(format!("template: {}:{line}: {text}", self.name))
    }

    fn unexpected(&self, token: &Token, context: &str) -> Error {
        if token.kind == Kind::Error {
            return Error(format!("template: {}:{}: {}", self.name, token.line, token.text));
        }
        self.error(&format!("unexpected {} in {context}", token.shown()))
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        if self.at < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
    }

    fn next_non_space(&mut self) -> Token {
        self.skip_space();
        self.next()
    }

    fn peek_non_space(&mut self) -> Token {
        self.skip_space();
        self.peek().clone()
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<Token, Error> {
        let token = self.next_non_space();
        if token.kind == kind { Ok(token) } else { Err(self.unexpected(&token, context)) }
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error("template nests too deeply")) } else { Ok(()) }
    }

    fn list(&mut self, top: bool) -> Result<(List, Ended), Error> {
        self.enter()?;
        let mut list = List::new();
        loop {
            let token = self.next();
            match token.kind {
                Kind::Eof if top => break self.leave(list, Ended::Eof),
                Kind::Eof => return Err(self.error("unexpected EOF")),
                Kind::Text => list.push(Item::Text(token.text)),
                Kind::LeftDelim => {
                    let word = self.peek_non_space();
                    match word.kind {
                        Kind::Define if top => {
                            self.at += 1;
                            self.define()?;
                            continue;
                        }
                        Kind::End => {
                            self.at += 1;
                            self.expect(Kind::RightDelim, "end")?;
                            break self.leave(list, Ended::End);
                        }
                        Kind::Else => {
                            self.at += 1;
                            break self.leave(list, Ended::Else);
                        }
                        _ => list.push(self.action()?),
                    }
                }
                _ => return Err(self.unexpected(&token, "input")),
            }
        }
    }

    fn leave(&mut self, list: List, end: Ended) -> Result<(List, Ended), Error> {
        self.depth -= 1;
        Ok((list, end))
    }

    fn template_name(&mut self, context: &str) -> Result<(usize, String), Error> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Str | Kind::RawStr => match unquote(&token.text) {
                Some(name) => Ok((token.pos, name)),
                None => Err(self.error("invalid syntax")),
            },
            _ => Err(self.unexpected(&token, context)),
        }
    }

    fn define(&mut self) -> Result<(), Error> {
        let (_, name) = self.template_name("define clause")?;
        self.expect(Kind::RightDelim, "define clause")?;
        let body = self.named_body("define clause")?;
        self.add(name, body)
    }

    /// A body with its own variables, as `define` and `block` have.
    fn named_body(&mut self, context: &str) -> Result<List, Error> {
        let outer = std::mem::replace(&mut self.vars, vec!["$".to_owned()]);
        let depth = std::mem::take(&mut self.range_depth);
        let (body, end) = self.list(false)?;
        self.vars = outer;
        self.range_depth = depth;
        match end {
            Ended::End => Ok(body),
            _ => Err(self.error(&format!("unexpected {{{{else}}}} in {context}"))),
        }
    }

    fn add(&mut self, name: String, body: List) -> Result<(), Error> {
        let empty =
            |list: &List| list.iter().all(|item| matches!(item, Item::Text(text) if text.trim().is_empty()));
        if let Some(before) = self.trees.get(&name) {
            if !empty(before) && !empty(&body) {
                return Err(Error(format!(
                    "template: {}: multiple definition of template {}",
                    self.name,
                    quote(&name)
                )));
            }
            if empty(&body) {
                return Ok(());
            }
        }
        self.trees.insert(name, body);
        Ok(())
    }

    fn action(&mut self) -> Result<Item, Error> {
        let token = self.next_non_space();
        match token.kind {
            Kind::If => self.branch(BranchKind::If),
            Kind::Range => self.branch(BranchKind::Range),
            Kind::With => self.branch(BranchKind::With),
            Kind::Break | Kind::Continue => {
                let word = if token.kind == Kind::Break { "break" } else { "continue" };
                let end = self.next_non_space();
                if end.kind != Kind::RightDelim {
                    return Err(self.unexpected(&end, &format!("{{{{{word}}}}}")));
                }
                if self.range_depth == 0 {
                    return Err(self.error(&format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                Ok(if token.kind == Kind::Break { Item::Break } else { Item::Continue })
            }
            Kind::Template => {
                let (pos, name) = self.template_name("template clause")?;
                let pipe = if self.peek_non_space().kind == Kind::RightDelim {
                    self.next();
                    None
                } else {
                    Some(self.pipeline("template clause", Kind::RightDelim)?)
                };
                Ok(Item::Template { pos, name, pipe })
            }
            Kind::Block => {
                let (pos, name) = self.template_name("block clause")?;
                let pipe = self.pipeline("block clause", Kind::RightDelim)?;
                let body = self.named_body("block clause")?;
                self.add(name.clone(), body)?;
                Ok(Item::Template { pos, name, pipe: Some(pipe) })
            }
            _ => {
                self.at -= 1;
                Ok(Item::Action(self.pipeline("command", Kind::RightDelim)?))
            }
        }
    }

    fn branch(&mut self, kind: BranchKind) -> Result<Item, Error> {
        self.enter()?;
        let word = match kind {
            BranchKind::If => "if",
            BranchKind::Range => "range",
            BranchKind::With => "with",
        };
        let scope = self.vars.len();
        let pipe = self.pipeline(word, Kind::RightDelim)?;
        let ranges = usize::from(kind == BranchKind::Range);
        self.range_depth += ranges;
        let (body, end) = self.list(false)?;
        self.range_depth -= ranges;
        let otherwise = match end {
            Ended::Else => Some(self.otherwise(kind)?),
            _ => None,
        };
        self.vars.truncate(scope);
        self.depth -= 1;
        Ok(Item::Branch { kind, pipe, body, otherwise })
    }

    fn otherwise(&mut self, kind: BranchKind) -> Result<List, Error> {
        let word = self.peek_non_space();
        let chained = match (kind, word.kind) {
            (BranchKind::If, Kind::If) => Some(BranchKind::If),
            (BranchKind::With, Kind::With) => Some(BranchKind::With),
            _ => None,
        };
        if let Some(kind) = chained {
            self.next();
            return Ok(vec![self.branch(kind)?]);
        }
        let token = self.next_non_space();
        if token.kind != Kind::RightDelim {
            return Err(self.unexpected(&token, "else"));
        }
        match self.list(false)? {
            (list, Ended::End) => Ok(list),
            _ => Err(self.error("expected end; found {{else}}")),
        }
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe, Error> {
        self.enter()?;
        let pos = self.peek_non_space().pos;
        let (decl, assign) = self.declarations(context)?;
        let mut commands = Vec::new();
        loop {
            let token = self.next_non_space();
            match token.kind {
                kind if kind == end => {
                    self.check(&commands, context)?;
                    if !assign {
                        self.vars.extend(decl.iter().cloned());
                    }
                    self.depth -= 1;
                    return Ok(Pipe { pos, assign, decl, commands });
                }
                Kind::Bool
                | Kind::Char
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawStr
                | Kind::Str
                | Kind::Variable
                | Kind::LeftParen => {
                    self.at -= 1;
                    commands.push(self.command()?);
                }
                _ => return Err(self.unexpected(&token, context)),
            }
        }
    }

    /// `$x :=`, `$x =`, `$i, $e :=` in front of a pipeline, if there.
    fn declarations(&mut self, context: &str) -> Result<(Vec<String>, bool), Error> {
        let start = self.at;
        let mut decl = Vec::new();
        loop {
            let token = self.peek_non_space();
            if token.kind != Kind::Variable {
                break;
            }
            self.at += 1;
            let after = self.peek_non_space();
            match after.kind {
                Kind::Declare | Kind::Assign => {
                    self.at += 1;
                    if after.kind == Kind::Assign && !self.vars.contains(&token.text) {
                        return Err(self.error(&format!("undefined variable {}", quote(&token.text))));
                    }
                    decl.push(token.text);
                    return Ok((decl, after.kind == Kind::Assign));
                }
                Kind::Comma => {
                    self.at += 1;
                    decl.push(token.text);
                    if context == "range" && decl.len() < 2 {
                        if self.peek_non_space().kind == Kind::Variable {
                            continue;
                        }
                        return Err(self.error("range can only initialize variables"));
                    }
                    return Err(self.error(&format!("too many declarations in {context}")));
                }
                _ => break,
            }
        }
        self.at = start;
        if decl.is_empty() { Ok((decl, false)) } else { Err(self.error("missing value for declaration")) }
    }

    fn check(&self, commands: &[Command], context: &str) -> Result<(), Error> {
        if commands.is_empty() {
            return Err(self.error(&format!("missing value for {context}")));
        }
        for (index, command) in commands.iter().enumerate().skip(1) {
            if matches!(
                command.args[0].expr,
                Expr::Bool(_) | Expr::Dot | Expr::Nil | Expr::Number(_) | Expr::Str(..)
            ) {
                return Err(self.error(&format!("non executable command in pipeline stage {}", index + 1)));
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<Command, Error> {
        let pos = self.peek_non_space().pos;
        let mut args = Vec::new();
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                args.push(operand);
            }
            let token = self.next();
            match token.kind {
                Kind::Space => continue,
                Kind::RightDelim | Kind::RightParen => self.at -= 1,
                Kind::Pipe => {
                    // A pipe that ends the pipeline has nothing to run.
                    let next = self.peek_non_space();
                    if matches!(next.kind, Kind::RightDelim | Kind::RightParen) {
                        return Err(self.error("missing value for command"));
                    }
                }
                _ => return Err(self.unexpected(&token, "operand")),
            }
            break;
        }
        if args.is_empty() { Err(self.error("empty command")) } else { Ok(Command { pos, args }) }
    }

    fn operand(&mut self) -> Result<Option<Node>, Error> {
        let Some(node) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(node));
        }
        let pos = self.peek().pos;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.next().text[1..].to_owned());
        }
        let expr = match node.expr {
            Expr::Field(mut first) => {
                first.extend(names);
                Expr::Field(first)
            }
            Expr::Variable(mut first) => {
                first.extend(names);
                Expr::Variable(first)
            }
            Expr::Bool(_) | Expr::Str(..) | Expr::Number(_) | Expr::Nil | Expr::Dot => {
                return Err(self.error(&format!("unexpected . after term {}", quote(&node.to_string()))));
            }
            _ => Expr::Chain(Box::new(node), names),
        };
        Ok(Some(Node { pos, expr }))
    }

    fn term(&mut self) -> Result<Option<Node>, Error> {
        let token = self.next_non_space();
        let pos = token.pos;
        let expr = match token.kind {
            Kind::Identifier => {
                if !crate::funcs::exists(&token.text) {
                    return Err(self.error(&format!("function {} not defined", quote(&token.text))));
                }
                Expr::Identifier(token.text)
            }
            Kind::Dot => Expr::Dot,
            Kind::Nil => Expr::Nil,
            Kind::Variable => {
                if !self.vars.contains(&token.text) {
                    return Err(self.error(&format!("undefined variable {}", quote(&token.text))));
                }
                Expr::Variable(vec![token.text])
            }
            Kind::Field => Expr::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool => Expr::Bool(token.text == "true"),
            Kind::Number => match number(&token.text) {
                Some(number) => Expr::Number(number),
                None => return Err(self.error(&format!("bad number syntax: {}", quote(&token.text)))),
            },
            Kind::Char => match unquote(&token.text).filter(|_| token.text.len() > 2) {
                Some(text) if text.chars().count() == 1 => {
                    let code = text.chars().next().map_or(0, |c| i64::from(u32::from(c)));
                    Expr::Number(Number { text: token.text, int: Some(code), float: None })
                }
                _ if token.text.starts_with('\'') => {
                    return Err(self.error(&format!("malformed character constant: {}", token.text)));
                }
                _ => return Err(self.unexpected(&token, "operand")),
            },
            Kind::LeftParen => {
                Expr::Pipe(Box::new(self.pipeline("parenthesized pipeline", Kind::RightParen)?))
            }
            Kind::Str | Kind::RawStr => match unquote(&token.text) {
                Some(value) => Expr::Str(value, token.text),
                None => return Err(self.error("invalid syntax")),
            },
            _ => {
                self.at -= 1;
                return Ok(None);
            }
        };
        Ok(Some(Node { pos, expr }))
    }
}

/// A Go number literal: decimal, hex, octal and binary integers with `_`, and decimal floats.
pub(crate) fn number(text: &str) -> Option<Number> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if body.starts_with('_') || body.ends_with('_') || body.contains("__") {
        return None;
    }
    let lower = body.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1
            && lower.starts_with('0')
            && lower.bytes().all(|b| b.is_ascii_digit() || b == b'_') =>
        {
            (8, &lower[1..])
        }
        _ => (10, lower.as_str()),
    };
    let digits = digits.replace('_', "");
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let int = i128::from_str_radix(&digits, radix)
        .ok()
        .map(|value| if negative { -value } else { value })
        .and_then(|value| i64::try_from(value).ok());
    if let Some(int) = int {
        return Some(Number { text: text.to_owned(), int: Some(int), float: Some(int as f64) });
    }
    let floaty = radix == 10 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'+' | b'-'));
    let float = floaty.then(|| digits.parse::<f64>().ok()).flatten().filter(|value| value.is_finite())?;
    let float = if negative { -float } else { float };
    Some(Number { text: text.to_owned(), int: None, float: Some(float) })
}
