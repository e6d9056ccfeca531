//! Running a template.

use std::fmt::Display;

use serde_json::Value;

use crate::node::{BranchKind, Command, Expr, Item, List, Node, Pipe};
use crate::printf::print_value;
use crate::quote::quote;
use crate::value::{View, sorted, static_name};
use crate::{Error, MAX_OUTPUT, MissingKey, Template, Type, Val};

/// How deep branches, parentheses and calls of templates may nest while running.
const MAX_DEPTH: usize = 250;

/// What a method answered: `None` if there is no such method.
pub type MethodResult<'d> = Option<Result<Val<'d>, String>>;

/// Methods that the host adds to the value a template starts with.
pub trait Methods {
    /// Whether there is a method of this name; if not, fields are looked at.
    fn has(&self, name: &str) -> bool;

    /// Calls `name`; `None` means that there is no such method.
    fn call<'d>(&self, name: &str, args: &[Val<'d>]) -> MethodResult<'d>;

    /// The name of the type in errors about unknown fields, if it has one.
    fn type_name(&self) -> Option<&str> {
        None
    }

    /// Whether the outermost value has methods only, so that an unknown name is an error and not a missing key.
    fn strict(&self) -> bool {
        false
    }

    /// The JSON of the outermost value, if it is not that of its fields.
    fn json(&self) -> Option<String> {
        None
    }
}

/// No methods at all.
pub struct NoMethods;

impl Methods for NoMethods {
    fn has(&self, _: &str) -> bool {
        false
    }

    fn call<'d>(&self, _: &str, _: &[Val<'d>]) -> MethodResult<'d> {
        None
    }
}

pub(crate) struct State<'t, 'd> {
    template: &'t Template,
    name: &'t str,
    missing: MissingKey,
    pub(crate) methods: &'t dyn Methods,
    pub(crate) root: *const Value,
    out: String,
    vars: Vec<(&'t str, Val<'d>)>,
    pub(crate) at: Option<(usize, &'t dyn Display)>,
    depth: usize,
}

/// Why a list of items ended early.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

pub(crate) fn execute(
    template: &Template,
    data: Val<'_>,
    missing: MissingKey,
    methods: &dyn Methods,
) -> Result<String, Error> {
    let mut state = State {
        template,
        name: &template.name,
        missing,
        methods,
        root: data.value().map_or(std::ptr::null(), std::ptr::from_ref),
        out: String::new(),
        vars: vec![("$", data.clone())],
        at: None,
        depth: 0,
    };
    if let Some(list) = template.trees.get(&template.name) {
        state.list(&data, list)?;
    }
    Ok(state.out)
}

impl<'t, 'd> State<'t, 'd> {
    pub(crate) fn header(&self) -> bool {
        self.template.header
    }

    pub(crate) fn error(&self, text: &str) -> Error {
        let name = &self.template.name;
        let Some((pos, node)) = self.at else {
            return Error(format!("template: {name}: {text}"));
        };
        let before = &self.template.text[..pos];
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(pos, |newline| pos - newline - 1);
        Error(format!("template: {name}:{line}:{column}: executing {} at <{node}>: {text}", quote(self.name)))
    }

    pub(crate) fn set_at(&mut self, node: &'t Node) {
        self.at = Some((node.pos, node));
    }

    fn write(&mut self, text: &str) -> Result<(), Error> {
        if self.out.len() + text.len() > MAX_OUTPUT {
            return Err(self.error("output is too large"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(&format!("exceeded maximum template depth ({MAX_DEPTH})")));
        }
        Ok(())
    }

    fn list(&mut self, dot: &Val<'d>, list: &'t List) -> Result<Flow, Error> {
        self.enter()?;
        for item in list {
            let flow = self.item(dot, item)?;
            if flow != Flow::Next {
                self.depth -= 1;
                return Ok(flow);
            }
        }
        self.depth -= 1;
        Ok(Flow::Next)
    }

    fn item(&mut self, dot: &Val<'d>, item: &'t Item) -> Result<Flow, Error> {
        match item {
            Item::Text(text) => self.write(text)?,
            Item::Action(pipe) => {
                let value = self.pipeline(dot, pipe)?;
                if pipe.decl.is_empty() {
                    let mut text = String::new();
                    print_value(&mut text, &value);
                    self.write(&text)?;
                }
            }
            Item::Break => return Ok(Flow::Break),
            Item::Continue => return Ok(Flow::Continue),
            Item::Branch { kind: BranchKind::Range, pipe, body, otherwise } => {
                return self.range(dot, pipe, body, otherwise.as_ref());
            }
            Item::Branch { kind, pipe, body, otherwise } => {
                let mark = self.vars.len();
                let value = self.pipeline(dot, pipe)?;
                let flow = match (value.truth(), otherwise) {
                    (true, _) => self.list(if *kind == BranchKind::With { &value } else { dot }, body)?,
                    (false, Some(otherwise)) => self.list(dot, otherwise)?,
                    (false, None) => Flow::Next,
                };
                self.vars.truncate(mark);
                return Ok(flow);
            }
            Item::Template { pos, name, pipe } => self.call_template(dot, *pos, name, pipe.as_ref())?,
        }
        Ok(Flow::Next)
    }

    fn call_template(
        &mut self,
        dot: &Val<'d>,
        pos: usize,
        name: &'t String,
        pipe: Option<&'t Pipe>,
    ) -> Result<(), Error> {
        self.at = Some((pos, name));
        let Some(list) = self.template.trees.get(name) else {
            // Only here is the whole clause quoted, so its text is made here.
            let quoted = pipe.map_or_else(|| quote(name), |pipe| format!("{} {pipe}", quote(name)));
            let text = self.error(&format!("template {} not defined", quote(name))).0;
            return Err(Error(text.replacen(
                &format!("<{name}>"),
                &format!("<{{{{template {quoted}}}}}>"),
                1,
            )));
        };
        let dot = match pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Val::missing(),
        };
        let vars = std::mem::replace(&mut self.vars, vec![("$", dot.clone())]);
        let outer = std::mem::replace(&mut self.name, name);
        self.enter()?;
        self.list(&dot, list)?;
        self.depth -= 1;
        self.name = outer;
        self.vars = vars;
        Ok(())
    }

    fn range(
        &mut self,
        dot: &Val<'d>,
        pipe: &'t Pipe,
        body: &'t List,
        otherwise: Option<&'t List>,
    ) -> Result<Flow, Error> {
        let outer = self.vars.len();
        let value = self.pipeline(dot, pipe)?;
        let mark = self.vars.len();
        let mut any = false;
        let mut round = |state: &mut Self, key: Val<'d>, item: Val<'d>| -> Result<bool, Error> {
            any = true;
            state.bind(pipe, key, &item);
            let flow = state.list(&item, body)?;
            state.vars.truncate(mark);
            Ok(flow != Flow::Break)
        };
        match value.view() {
            View::Missing | View::Nil => {}
            View::List(items, of) => {
                for index in 0..items.len() {
                    let item = value.part(of, |list| list.get(index)).unwrap_or_else(Val::missing);
                    if !round(self, Val::own(index), item)? {
                        break;
                    }
                }
            }
            View::Map(map, of) => {
                for (key, _) in map.map(sorted).unwrap_or_default() {
                    let item = value.part(of, |map| map.get(key)).unwrap_or_else(Val::missing);
                    if !round(self, Val::own(key.clone()), item)? {
                        break;
                    }
                }
            }
            View::Int(_) if pipe.decl.len() > 1 => {
                let mut shown = String::new();
                print_value(&mut shown, &value);
                return Err(self.error(&format!("can't use {shown} to iterate over more than one variable")));
            }
            View::Int(count) => {
                for index in 0..i64::try_from(count).unwrap_or(i64::MAX) {
                    // Without output an unbounded range would never hit the output's ceiling.
                    if index > MAX_OUTPUT as i64 {
                        return Err(self.error("range is too long"));
                    }
                    if !round(self, Val::own(index), Val::own(index))? {
                        break;
                    }
                }
            }
            _ => {
                let mut shown = String::new();
                print_value(&mut shown, &value);
                return Err(self.error(&format!("range can't iterate over {shown}")));
            }
        }
        let flow = match (any, otherwise) {
            (false, Some(otherwise)) => self.list(dot, otherwise)?,
            _ => Flow::Next,
        };
        self.vars.truncate(outer);
        Ok(flow)
    }

    /// Sets the variables of a `range` for one round.
    fn bind(&mut self, pipe: &'t Pipe, key: Val<'d>, item: &Val<'d>) {
        let values = match pipe.decl.len() {
            0 => return,
            1 => vec![item.clone()],
            _ => vec![key, item.clone()],
        };
        let top = self.vars.len();
        for (index, value) in values.into_iter().enumerate() {
            if pipe.assign {
                self.set_var(&pipe.decl[index], value);
            } else {
                self.vars[top - pipe.decl.len() + index].1 = value;
            }
        }
    }

    fn set_var(&mut self, name: &str, value: Val<'d>) {
        if let Some(var) = self.vars.iter_mut().rev().find(|(known, _)| *known == name) {
            var.1 = value;
        }
    }

    fn pipeline(&mut self, dot: &Val<'d>, pipe: &'t Pipe) -> Result<Val<'d>, Error> {
        self.enter()?;
        self.at = Some((pipe.pos, pipe));
        let mut last: Option<Val<'d>> = None;
        for command in &pipe.commands {
            last = Some(self.command(dot, command, last)?.unwrapped());
        }
        let value = last.unwrap_or_else(Val::missing);
        for name in &pipe.decl {
            if pipe.assign {
                self.set_var(name, value.clone());
            } else {
                self.vars.push((name, value.clone()));
            }
        }
        self.depth -= 1;
        Ok(value)
    }

    fn command(
        &mut self,
        dot: &Val<'d>,
        command: &'t Command,
        last: Option<Val<'d>>,
    ) -> Result<Val<'d>, Error> {
        let node = &command.args[0];
        match &node.expr {
            Expr::Field(_) | Expr::Chain(..) | Expr::Variable(_) => {
                self.fields(dot, node, &command.args[1..], last)
            }
            Expr::Identifier(name) => {
                self.set_at(node);
                self.function(dot, node, (command.pos, command), name, &command.args[1..], last)
            }
            expr => {
                if !matches!(expr, Expr::Pipe(_)) {
                    self.set_at(node);
                }
                if command.args.len() > 1 || last.is_some() {
                    return Err(self.error(&format!("can't give argument to non-function {node}")));
                }
                if let Expr::Nil = expr {
                    return Err(self.error("nil is not a command"));
                }
                self.operand(dot, node)
            }
        }
    }

    /// A field, chain or variable with the arguments that only a method may have.
    fn fields(
        &mut self,
        dot: &Val<'d>,
        node: &'t Node,
        args: &'t [Node],
        last: Option<Val<'d>>,
    ) -> Result<Val<'d>, Error> {
        self.set_at(node);
        let (start, names): (Val<'d>, &'t [String]) = match &node.expr {
            Expr::Field(names) => (dot.clone(), names),
            Expr::Variable(names) => (self.variable(&names[0]), &names[1..]),
            Expr::Chain(inner, names) => {
                if let Expr::Nil = inner.expr {
                    return Err(self.error(&format!("indirection through explicit nil in {node}")));
                }
                let start = self.operand(dot, inner)?;
                self.set_at(node);
                (start, names)
            }
            _ => unreachable!("only called for these three"),
        };
        let Some((name, before)) = names.split_last() else {
            if !args.is_empty() || last.is_some() {
                return Err(self.error(&format!("can't give argument to non-function {node}")));
            }
            return Ok(start);
        };
        let mut value = start;
        for name in before {
            value = self.field(dot, &value, name, &[], None)?;
        }
        self.field(dot, &value, name, args, last)
    }

    fn variable(&self, name: &str) -> Val<'d> {
        self.vars
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
            .map_or_else(Val::missing, |(_, value)| value.clone())
    }

    fn field(
        &mut self,
        dot: &Val<'d>,
        receiver: &Val<'d>,
        name: &str,
        args: &'t [Node],
        last: Option<Val<'d>>,
    ) -> Result<Val<'d>, Error> {
        let is_root = receiver.value().is_some_and(|value| std::ptr::eq(value, self.root));
        let has_args = !args.is_empty() || last.is_some();
        if is_root && let Some(result) = self.method(dot, name, args, &last)? {
            return Ok(result);
        }
        let type_name = || match self.methods.type_name() {
            Some(name) if is_root => name.to_owned(),
            // What came out of a map is an interface; only the outermost value shows its own type.
            _ if !is_root => static_name(receiver.ty),
            _ => receiver.type_name(),
        };
        match receiver.view() {
            View::Missing => match self.missing {
                MissingKey::NoValue => return Ok(Val::missing()),
                MissingKey::Error => {
                    return Err(self.error(&format!("nil data; no entry for key {}", quote(name))));
                }
            },
            View::Nil => {
                return Err(
                    self.error(&format!("nil pointer evaluating {}.{name}", static_name(receiver.ty)))
                );
            }
            View::NilPtr => {
                let known = match receiver.ty {
                    Type::Ptr(Type::Struct(_, fields)) => fields.iter().any(|field| field.name == name),
                    _ => true,
                };
                if known {
                    return Err(self.error(&format!("nil pointer evaluating {}.{name}", type_name())));
                }
            }
            View::Struct(map, fields) => {
                if let Some(field) = fields.iter().find(|field| field.name == name) {
                    if has_args {
                        return Err(
                            self.error(&format!("{name} has arguments but cannot be invoked as function"))
                        );
                    }
                    let found = map.and_then(|_| receiver.part(field.ty, |value| value.get(field.key)));
                    return Ok(found.unwrap_or_else(|| Val::nil(field.ty)));
                }
            }
            View::Map(map, of)
                if !(matches!(receiver.ty, Type::KeyedMap(..)) || is_root && self.methods.strict()) =>
            {
                if has_args {
                    return Err(self.error(&format!("{name} is not a method but has arguments")));
                }
                let found = map.and_then(|_| receiver.part(of, |value| value.get(name)));
                return match (found, self.missing) {
                    (Some(value), _) => Ok(value),
                    (None, MissingKey::NoValue) => Ok(Val::missing()),
                    (None, MissingKey::Error) => {
                        Err(self.error(&format!("map has no entry for key {}", quote(name))))
                    }
                };
            }
            _ => {}
        }
        Err(self.error(&format!("can't evaluate field {name} in type {}", type_name())))
    }

    fn method(
        &mut self,
        dot: &Val<'d>,
        name: &str,
        args: &'t [Node],
        last: &Option<Val<'d>>,
    ) -> Result<Option<Val<'d>>, Error> {
        if !self.methods.has(name) {
            return Ok(None);
        }
        let at = self.at;
        let mut values = Vec::new();
        for arg in args {
            values.push(self.arg(dot, arg)?);
        }
        values.extend(last.iter().cloned());
        self.at = at;
        match self.methods.call(name, &values) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(text)) => Err(self.error(&text)),
        }
    }

    /// The value of one argument.
    pub(crate) fn arg(&mut self, dot: &Val<'d>, node: &'t Node) -> Result<Val<'d>, Error> {
        self.set_at(node);
        match &node.expr {
            Expr::Nil => Ok(Val::nil(&Type::Any)),
            _ => self.operand(dot, node),
        }
    }

    fn operand(&mut self, dot: &Val<'d>, node: &'t Node) -> Result<Val<'d>, Error> {
        Ok(match &node.expr {
            Expr::Dot => dot.clone(),
            Expr::Nil => return Err(self.error("nil is not a command")),
            Expr::Bool(value) => Val::own(*value),
            Expr::Str(text, _) => Val::own(text.as_str()),
            Expr::Number(number) => match (number.int, number.float) {
                (Some(int), _) => {
                    // `1.0` parses as an integer only if it was written as one.
                    Val::own(int)
                }
                (None, Some(float)) => Val::own(float),
                (None, None) => return Err(self.error(&format!("{} overflows int", number.text))),
            },
            Expr::Field(_) | Expr::Chain(..) | Expr::Variable(_) => self.fields(dot, node, &[], None)?,
            Expr::Identifier(name) => {
                self.set_at(node);
                self.function(dot, node, (node.pos, node), name, &[], None)?
            }
            Expr::Pipe(pipe) => self.pipeline(dot, pipe)?,
        })
    }
}
