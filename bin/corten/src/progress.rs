//! Progress of pull, load, import and build: lines that are written over on a terminal, plain lines elsewhere.

use api_client::Lines;
use api_types::{ProgressDetail, ProgressMessage};
use serde_json::Value;

use crate::fail::Fail;
use crate::output::{self, Which};
use crate::units::human_size;

/// Where progress is shown, and how.
#[derive(Debug, Clone, Copy)]
pub enum Show {
    Lines,
    Terminal {
        columns: usize,
    },
    /// Not at all; only errors count.
    Nothing,
}

impl Show {
    /// What an output is good for.
    pub fn on(which: Which) -> Self {
        match crate::term::columns_of(which) {
            Some(columns) => Self::Terminal { columns },
            None => Self::Lines,
        }
    }
}

/// What is left when everything has been shown.
#[derive(Debug, Default)]
pub struct Said {
    /// What the daemon said on the side.
    pub aux: Vec<Value>,
    /// The text of what was not shown.
    pub text: String,
}

/// Shows all messages.
pub async fn show(mut lines: Lines, how: Show, to: Which) -> Result<Said, Fail> {
    let print = |text: String| match to {
        Which::Stdout => output::out(&text),
        Which::Stderr => output::err_bytes(text.as_bytes()),
    };
    let mut said = Said::default();
    let mut ids: Vec<String> = Vec::new();
    while let Some(message) = lines.next::<ProgressMessage>().await? {
        if let Some(value) = message.aux {
            said.aux.push(value);
            continue;
        }
        if let Some(fail) = failure(&message) {
            return Err(fail);
        }
        match how {
            Show::Nothing => said.text.push_str(message.stream.as_deref().unwrap_or_default()),
            Show::Lines => print(line(&message)),
            Show::Terminal { columns } => print(terminal(&message, columns, &mut ids)),
        }
    }
    Ok(said)
}

fn failure(message: &ProgressMessage) -> Option<Fail> {
    let detail = message.error_detail.as_ref();
    let text = detail
        .map(|detail| detail.message.clone())
        .filter(|text| !text.is_empty())
        .or_else(|| message.error.clone())?;
    let code = detail.map_or(0, |detail| detail.code);
    Some(Fail::text(text).code(if code == 0 { 1 } else { i32::try_from(code).unwrap_or(1) }))
}

fn head(message: &ProgressMessage) -> String {
    message.id.as_ref().filter(|id| !id.is_empty()).map_or(String::new(), |id| format!("{id}: "))
}

/// A message without a terminal: what only moves is left out.
fn line(message: &ProgressMessage) -> String {
    if message
        .progress_detail
        .as_ref()
        .is_some_and(|detail| detail.current.unwrap_or(0) > 0 || detail.total.unwrap_or(0) > 0)
    {
        return String::new();
    }
    match &message.stream {
        Some(stream) if !stream.is_empty() => format!("{}{stream}", head(message)),
        _ => format!("{}{}\n", head(message), message.status.as_deref().unwrap_or_default()),
    }
}

/// A message on a terminal: each ID keeps its line.
fn terminal(message: &ProgressMessage, columns: usize, ids: &mut Vec<String>) -> String {
    let mut out = String::new();
    let mut up = 0;
    let id = message.id.as_deref().unwrap_or_default();
    match (&message.progress_detail, id) {
        (Some(_), id) if !id.is_empty() => {
            let line = ids.iter().position(|known| known == id).unwrap_or_else(|| {
                ids.push(id.to_owned());
                out.push('\n');
                ids.len() - 1
            });
            up = ids.len() - line;
            out.push_str(&format!("\x1b[{up}A"));
        }
        _ => ids.clear(),
    }
    match (&message.stream, &message.progress_detail) {
        (Some(stream), _) if !stream.is_empty() => {
            out.push_str(&head(message));
            out.push_str(stream);
        }
        (_, Some(detail)) => {
            let status = message.status.as_deref().unwrap_or_default();
            out.push_str(&format!("\x1b[2K\r{}{status} {}\r", head(message), bar(detail, columns)));
        }
        _ => out.push_str(&line(message)),
    }
    if up > 0 {
        out.push_str(&format!("\x1b[{up}B"));
    }
    out
}

/// `[=====>     ]  1.5MB/3MB`; only the numbers where there is little room.
fn bar(detail: &ProgressDetail, columns: usize) -> String {
    let (current, total) = (detail.current.unwrap_or(0), detail.total.unwrap_or(0));
    if current <= 0 && total <= 0 {
        return String::new();
    }
    let size = |bytes: i64| human_size(bytes as f64, 4);
    if total <= 0 {
        return format!("{:>8}", size(current));
    }
    let done = ((current as f64 / total as f64 * 100.0) as usize / 2).min(50);
    let drawn = match done {
        _ if columns <= 110 => String::new(),
        50 => format!("[{}>] ", "=".repeat(50)),
        done => format!("[{}>{}] ", "=".repeat(done), " ".repeat(50 - done)),
    };
    let numbers = format!("{:>8}/{}", size(current), size(total));
    // A total that was passed was wrong.
    if current > total { format!("{drawn}{:>8}", size(current)) } else { drawn + &numbers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> ProgressMessage {
        serde_json::from_str(json).expect("valid")
    }

    #[test]
    fn plain_lines() {
        assert_eq!(line(&message(r#"{"stream":"Loaded image: x\n"}"#)), "Loaded image: x\n");
        assert_eq!(
            line(&message(r#"{"status":"Pull complete","id":"abc","progressDetail":{}}"#)),
            "abc: Pull complete\n"
        );
        assert_eq!(
            line(&message(r#"{"status":"Downloading","id":"abc","progressDetail":{"current":1,"total":2}}"#)),
            ""
        );
    }

    #[test]
    fn bars() {
        let detail = ProgressDetail { current: Some(500), total: Some(1000) };
        assert_eq!(bar(&detail, 80), "    500B/1kB");
        assert!(bar(&detail, 200).starts_with("[=========================>                         ]"));
    }

    #[test]
    fn errors_have_the_commands_code() {
        let fail = failure(&message(r#"{"errorDetail":{"code":3,"message":"bad"},"error":"bad"}"#))
            .expect("an error");
        assert_eq!((fail.text.as_str(), fail.code), ("bad", 3));
        assert_eq!(failure(&message(r#"{"error":"plain"}"#)).map(|fail| fail.code), Some(1));
    }
}
