//! The Go template language over JSON values, as `--format` speaks it.
//!
//! Pure: text and a value in, text out. The language is Go's `text/template` with Docker's extra functions; error texts
//! are Go's, because scripts match on them. A value may carry a [`Type`]: then a field that the JSON leaves out has its
//! zero value, and unknown fields are errors, as they are for Go structs. Without one a value is what the JSON says.
//!
//! Bounded: template length, nesting of nodes, calls of templates and the size of the output all have a ceiling.

mod call;
mod exec;
mod funcs;
mod lex;
mod node;
mod parse;
mod printf;
mod quote;
mod value;

pub use exec::{MethodResult, Methods, NoMethods};
pub use quote::quote;
pub use value::{Field, Type, Val};

use std::collections::BTreeMap;

/// The longest template accepted, in bytes.
pub const MAX_TEMPLATE: usize = 1 << 20;
/// The largest output one execution may make, in bytes.
pub const MAX_OUTPUT: usize = 64 << 20;

/// What went wrong, in the words of Go's template package (without the `template parsing error: ` that Docker adds).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// What a field that a map does not have evaluates to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingKey {
    /// Prints as `<no value>`.
    #[default]
    NoValue,
    /// Ends the execution: `map has no entry for key "x"`.
    Error,
}

/// A parsed template, with the templates that it defines by name.
#[derive(Debug, Clone)]
pub struct Template {
    name: String,
    text: String,
    trees: BTreeMap<String, node::List>,
    header: bool,
}

impl Template {
    /// Parses `text`; `name` shows up in error texts (Docker uses the empty name).
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        if text.len() > MAX_TEMPLATE {
            return Err(Error(format!("template: {name}: template is longer than {MAX_TEMPLATE} bytes")));
        }
        let trees = parse::parse(name, text)?;
        Ok(Self { name: name.to_owned(), text: text.to_owned(), trees, header: false })
    }

    /// The same template with Docker's own functions replaced by ones that hand their argument through: the pass that
    /// prints the headings of a `table` format.
    pub fn for_header(mut self) -> Self {
        self.header = true;
        self
    }

    /// Whether the text names a field, say `Size`, anywhere.
    pub fn mentions(&self, field: &str) -> bool {
        self.text.contains(&format!(".{field}"))
    }

    /// Executes over plain JSON.
    pub fn execute(&self, data: &serde_json::Value, missing: MissingKey) -> Result<String, Error> {
        self.execute_typed(Val::json(data), missing, &NoMethods)
    }

    /// Executes over a typed value, with `methods` asked before fields for every name looked up on the outermost value.
    pub fn execute_typed(
        &self,
        data: Val<'_>,
        missing: MissingKey,
        methods: &dyn Methods,
    ) -> Result<String, Error> {
        exec::execute(self, data, missing, methods)
    }
}

#[cfg(test)]
mod tests;
