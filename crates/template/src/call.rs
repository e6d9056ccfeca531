//! Calling functions: counting and checking arguments, and the ones that do not evaluate all of them.

use std::fmt::{Display, Write as _};

use crate::exec::State;
use crate::node::{Expr, Node};
use crate::value::View;
use crate::{Error, Val, funcs};

impl<'t, 'd> State<'t, 'd> {
    /// `whole` is the command with its arguments: what errors of the function itself quote.
    pub(crate) fn function(
        &mut self,
        dot: &Val<'d>,
        node: &'t Node,
        whole: (usize, &'t dyn Display),
        name: &'t str,
        args: &'t [Node],
        last: Option<Val<'d>>,
    ) -> Result<Val<'d>, Error> {
        if name == "and" || name == "or" {
            return self.logic(dot, node, name, args, last);
        }
        let count = args.len() + usize::from(last.is_some());
        if let Err(text) = funcs::check_count(name, count) {
            return Err(self.error(&text));
        }
        let mut values = Vec::with_capacity(count);
        for (index, arg) in args.iter().enumerate() {
            let value = self.arg(dot, arg)?;
            self.check_arg(name, index, arg, &value)?;
            values.push(value);
        }
        if let Some(last) = last {
            self.set_at(node);
            self.check_type(name, values.len(), &last)?;
            values.push(last);
        }
        if name == "json"
            && let Some(text) = self.root_json(&values[0])
        {
            return Ok(Val::own(text));
        }
        let result = match (name, args.first()) {
            // Its error quotes the argument.
            ("call", Some(arg)) => Err(funcs::call_refused(&values[0], &arg.to_string())),
            _ => funcs::call(self.header(), name, &values),
        };
        result.map_err(|text| {
            self.at = Some(whole);
            self.error(&format!("error calling {name}: {text}"))
        })
    }

    /// The JSON of the outermost value, where its methods make it.
    fn root_json(&self, value: &Val<'d>) -> Option<String> {
        let is_root = value.value().is_some_and(|value| std::ptr::eq(value, self.root));
        is_root.then(|| self.methods.json()).flatten()
    }

    /// `and`, `or`: arguments after the deciding one are not evaluated.
    fn logic(
        &mut self,
        dot: &Val<'d>,
        node: &'t Node,
        name: &str,
        args: &'t [Node],
        last: Option<Val<'d>>,
    ) -> Result<Val<'d>, Error> {
        if args.is_empty() && last.is_none() {
            return Err(self.error(&format!("wrong number of args for {name}: want at least 1 got 0")));
        }
        let mut value = Val::missing();
        for arg in args {
            value = self.arg(dot, arg)?.unwrapped();
            if value.truth() == (name == "or") {
                return Ok(value);
            }
        }
        self.set_at(node);
        Ok(last.unwrap_or(value))
    }

    /// Refuses a literal of the wrong kind with the text that names the literal.
    fn check_arg(&self, name: &str, index: usize, node: &Node, value: &Val<'d>) -> Result<(), Error> {
        let Some(wanted) = funcs::wanted(self.header(), name, index) else { return Ok(()) };
        let fits = funcs::fits(wanted, value);
        let literal = matches!(node.expr, Expr::Bool(_) | Expr::Number(_) | Expr::Str(..));
        match (fits, literal) {
            (true, _) => Ok(()),
            (false, true) => {
                let wanted = if wanted == "int" { "integer" } else { wanted };
                Err(self.error(&format!("expected {wanted}; found {node}")))
            }
            (false, false) => self.check_type(name, index, value),
        }
    }

    fn check_type(&self, name: &str, index: usize, value: &Val<'d>) -> Result<(), Error> {
        let Some(wanted) = funcs::wanted(self.header(), name, index) else { return Ok(()) };
        if funcs::fits(wanted, value) {
            return Ok(());
        }
        let mut text = String::new();
        let _ = match value.view() {
            View::Missing | View::Nil => write!(text, "invalid value; expected {wanted}"),
            _ => write!(text, "wrong type for value; expected {wanted}; got {}", value.type_name()),
        };
        Err(self.error(&text))
    }
}
