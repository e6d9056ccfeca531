//! Lists: tables, JSON lines and templates over rows of named texts.

use serde_json::{Map, Value};
use template::{MethodResult, Methods, MissingKey, Template, Val};

use crate::fail::Fail;
use crate::tabwriter;

/// One row: what its columns say, and labels for `{{.Label "x"}}`.
#[derive(Debug, Default, Clone)]
pub struct Row {
    pub fields: Map<String, Value>,
    pub labels: api_types::StringMap,
}

impl Row {
    /// A row of these columns; they are sorted by name, as JSON output has them.
    pub fn new(fields: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let mut fields: Vec<_> = fields.into_iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        let fields = fields.into_iter().map(|(name, text)| (name.to_owned(), Value::String(text))).collect();
        Self { fields, labels: api_types::StringMap::new() }
    }

    pub fn labels(mut self, labels: api_types::StringMap) -> Self {
        self.labels = labels;
        self
    }
}

/// A kind of list: its default table and the headings of its columns.
#[derive(Debug)]
pub struct List {
    /// The template of the default table, without `table `.
    pub default: &'static str,
    pub headings: &'static [(&'static str, &'static str)],
    /// The name of the rows' type in errors.
    pub type_name: &'static str,
}

/// What `--format` asks for.
#[derive(Debug)]
enum Format<'a> {
    Table(&'a str),
    Json,
    Plain(&'a str),
}

impl List {
    fn format<'a>(&self, text: &'a str) -> Format<'a>
    where
        Self: 'a,
    {
        match text {
            "" | "table" => Format::Table(self.default),
            "json" => Format::Json,
            text => match text.strip_prefix("table") {
                Some(columns) => Format::Table(columns),
                None => Format::Plain(text),
            },
        }
    }

    /// The parsed template of a format; parsing does not need the rows, so mistakes show before any request.
    fn parse(&self, text: &str) -> Result<Template, Fail> {
        let (Format::Table(text) | Format::Plain(text)) = self.format(text) else {
            return Ok(Template::parse("", "{{json .}}")?);
        };
        let text = text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        Template::parse("", &text).map_err(|error| Fail::text(format!("template parsing error: {error}")))
    }

    /// Mistakes in a format that show without any row, in the words of the commands that look first.
    pub fn check(&self, format: &str, row: &Row) -> Result<(), Fail> {
        let template = Template::parse("", format)
            .map_err(|error| Fail::text(format!("failed to parse template: {error}")))?;
        let value = Value::Object(row.fields.clone());
        template
            .execute_typed(Val::json(&value), MissingKey::NoValue, &RowMethods { row, list: self })
            .map(drop)
            .map_err(|error| Fail::text(format!("failed to execute template: {error}")))
    }

    /// Whether the format names a column, which then has to be asked for.
    pub fn mentions(&self, format: &str, column: &str) -> bool {
        format.contains(&format!(".{column}"))
    }

    /// The default table of a list that may be long: only the cells that show are made.
    pub fn default_table<T>(&self, rows: &[T], cell: impl Fn(&T, &str) -> String) -> String {
        let columns: Vec<&str> =
            self.default.split('\t').map(|column| column.trim_matches(['{', '}', '.'])).collect();
        let heading = |column: &&str| {
            self.headings.iter().find(|(name, _)| name == column).map_or("", |(_, text)| *text)
        };
        let mut out = columns.iter().map(heading).collect::<Vec<_>>().join("\t") + "\n";
        for row in rows {
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    out.push('\t');
                }
                out.push_str(&cell(row, column));
            }
            out.push('\n');
        }
        tabwriter::align(&out)
    }

    /// The whole output.
    pub fn render(&self, format: &str, rows: &[Row]) -> Result<String, Fail> {
        let template = self.parse(format)?;
        let mut out = String::new();
        let table = matches!(self.format(format), Format::Table(_));
        if table {
            let headings: Map<String, Value> =
                self.headings.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect();
            let headings = Value::Object(headings);
            let methods = HeadingMethods;
            let line = template.clone().for_header().execute_typed(
                Val::json(&headings),
                MissingKey::NoValue,
                &methods,
            )?;
            out.push_str(&line);
            out.push('\n');
        }
        for row in rows {
            let methods = RowMethods { row, list: self };
            let value = Value::Object(row.fields.clone());
            let line = template.execute_typed(Val::json(&value), MissingKey::NoValue, &methods)?;
            out.push_str(&line);
            out.push('\n');
        }
        Ok(if table { tabwriter::align(&out) } else { out })
    }
}

struct RowMethods<'a> {
    row: &'a Row,
    list: &'a List,
}

impl Methods for RowMethods<'_> {
    // Every name is a method of the row: unknown ones are errors, where a map would have no value.
    fn has(&self, name: &str) -> bool {
        name == "Label" || self.row.fields.contains_key(name)
    }

    fn call<'d>(&self, name: &str, args: &[Val<'d>]) -> MethodResult<'d> {
        if name == "Label" {
            let Some(Value::String(key)) = args.first().and_then(Val::value) else {
                return Some(Err(format!("wrong number of args for Label: want 1 got {}", args.len())));
            };
            return Some(Ok(Val::own(self.row.labels.get(key).cloned().unwrap_or_default())));
        }
        let value = self.row.fields.get(name)?;
        if !args.is_empty() {
            return Some(Err(format!("wrong number of args for {name}: want 0 got {}", args.len())));
        }
        Some(Ok(Val::own(value.clone())))
    }

    fn type_name(&self) -> Option<&str> {
        Some(self.list.type_name)
    }

    fn strict(&self) -> bool {
        true
    }

    // The reference client makes this JSON for HTML's sake.
    fn json(&self) -> Option<String> {
        let text = serde_json::to_string(&self.row.fields).ok()?;
        Some(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
    }
}

/// In headings `.Label "x"` is the last part of the label's name, in words.
struct HeadingMethods;

impl Methods for HeadingMethods {
    fn has(&self, name: &str) -> bool {
        name == "Label"
    }

    fn call<'d>(&self, name: &str, args: &[Val<'d>]) -> MethodResult<'d> {
        if name != "Label" {
            return None;
        }
        let Some(Value::String(key)) = args.first().and_then(Val::value) else {
            return Some(Ok(Val::own("")));
        };
        let last = key.rsplit('.').next().unwrap_or(key);
        Some(Ok(Val::own(last.replace(['-', '_'], " "))))
    }
}

/// An ID without its algorithm, cut to twelve characters.
pub fn short_id(id: &str) -> String {
    let id = id.split_once(':').map_or(id, |(_, hex)| hex);
    id.chars().take(12).collect()
}

/// Text cut to `width` characters, the last of them an ellipsis.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Labels as one column: `a=1,b=2`.
pub fn join_labels(labels: &api_types::StringMap) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: List = List {
        default: "{{.ID}}\t{{.Name}}",
        headings: &[("ID", "THING ID"), ("Name", "NAME")],
        type_name: "*formatter.ThingContext",
    };

    fn rows() -> Vec<Row> {
        let labels = [("com.x.some-label".to_owned(), "v".to_owned())].into_iter().collect();
        vec![Row::new([("Name", "web".to_owned()), ("ID", "abc".to_owned())]).labels(labels)]
    }

    fn render(format: &str) -> String {
        LIST.render(format, &rows()).unwrap_or_else(|fail| fail.text)
    }

    #[test]
    fn formats() {
        assert_eq!(render(""), "THING ID   NAME\nabc        web\n");
        let cell = |row: &Row, name: &str| row.fields[name].as_str().unwrap().to_owned();
        assert_eq!(LIST.default_table(&rows(), cell), render(""));
        assert_eq!(render("table {{.Name}}\\t{{.ID}}"), "NAME      THING ID\nweb       abc\n");
        assert_eq!(render("json"), "{\"ID\":\"abc\",\"Name\":\"web\"}\n");
        assert_eq!(render("{{.Name}}:{{.Label \"com.x.some-label\"}}"), "web:v\n");
        assert_eq!(render("table {{.Label \"com.x.some-label\"}}"), "some label\nv\n");
        assert_eq!(render("table {{upper .Name}}"), "NAME\nWEB\n");
    }

    #[test]
    fn mistakes() {
        assert_eq!(render("{{.Foo"), "template parsing error: template: :1: unclosed action");
        assert!(render("{{.Foo}}").contains("can't evaluate field Foo in type *formatter.ThingContext"));
    }

    #[test]
    fn ids_and_texts_are_cut() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(ellipsis("0123456789", 5), "0123…");
        assert_eq!(ellipsis("01234", 5), "01234");
    }
}
