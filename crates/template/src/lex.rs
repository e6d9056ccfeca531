//! Text into tokens, with Go's rules for delimiters, trim markers and comments.

/// Kinds of token, named after what they are in the template language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Error,
    Eof,
    Text,
    LeftDelim,
    RightDelim,
    Space,
    LeftParen,
    RightParen,
    Pipe,
    Comma,
    Assign,
    Declare,
    Char,
    Str,
    RawStr,
    Number,
    Bool,
    Nil,
    Dot,
    Field,
    Variable,
    Identifier,
    // Keywords, only inside an action.
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Range,
    Template,
    With,
}

impl Kind {
    pub(crate) fn is_keyword(self) -> bool {
        self as u8 >= Kind::Block as u8
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub kind: Kind,
    pub pos: usize,
    pub line: usize,
    pub text: String,
}

impl Token {
    /// How Go prints a token in an error text.
    pub(crate) fn shown(&self) -> String {
        match self.kind {
            Kind::Eof => "EOF".to_owned(),
            Kind::Error => self.text.clone(),
            kind if kind.is_keyword() => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                let cut: String = self.text.chars().take(10).collect();
                format!("{}...", crate::quote::quote(&cut))
            }
            _ => crate::quote::quote(&self.text),
        }
    }
}

struct Lexer<'t> {
    input: &'t str,
    pos: usize,
    line: usize,
    parens: usize,
    tokens: Vec<Token>,
}

/// All tokens of `input`; the last one is `Eof` or `Error`.
pub(crate) fn lex(input: &str) -> Vec<Token> {
    let mut lexer = Lexer { input, pos: 0, line: 1, parens: 0, tokens: Vec::new() };
    lexer.run();
    lexer.tokens
}

const TRIM: &[char] = &[' ', '\t', '\r', '\n'];

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.input[self.pos..]
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        let text = self.input[start..end].to_owned();
        let line = self.line;
        self.line += text.matches('\n').count();
        self.tokens.push(Token { kind, pos: start, line, text });
        self.pos = end;
    }

    fn fail(&mut self, text: String) {
        self.tokens.push(Token { kind: Kind::Error, pos: self.pos, line: self.line, text });
    }

    fn run(&mut self) {
        loop {
            let Some(at) = self.rest().find("{{") else {
                if !self.rest().is_empty() {
                    self.push(Kind::Text, self.pos, self.input.len());
                }
                self.push(Kind::Eof, self.input.len(), self.input.len());
                return;
            };
            let open = self.pos + at;
            let after = &self.input[open + 2..];
            let trims = after.starts_with('-') && after[1..].starts_with(TRIM);
            let text_end =
                if trims { self.pos + self.input[self.pos..open].trim_end_matches(TRIM).len() } else { open };
            if text_end > self.pos {
                self.push(Kind::Text, self.pos, text_end);
            }
            self.line += self.input[text_end.max(self.pos)..open].matches('\n').count();
            self.pos = open;
            let marker = if trims { 2 } else { 0 };
            let inside = open + 2 + marker;
            if self.input[inside..].starts_with("/*") {
                if !self.comment(inside) {
                    return;
                }
                continue;
            }
            self.push(Kind::LeftDelim, open, open + 2);
            self.skip_to(inside);
            self.parens = 0;
            if !self.action() {
                return;
            }
        }
    }

    fn skip_to(&mut self, end: usize) {
        self.line += self.input[self.pos..end].matches('\n').count();
        self.pos = end;
    }

    fn comment(&mut self, start: usize) -> bool {
        let Some(len) = self.input[start..].find("*/") else {
            self.skip_to(start);
            self.fail("unclosed comment".to_owned());
            return false;
        };
        let end = start + len + 2;
        self.skip_to(end);
        let (ends, trims) = self.at_right_delim();
        if !ends {
            self.fail("comment ends before closing delimiter".to_owned());
            return false;
        }
        self.close(trims);
        true
    }

    /// Whether a right delimiter is next, and whether it carries a trim marker.
    fn at_right_delim(&self) -> (bool, bool) {
        let rest = self.rest();
        let mut chars = rest.chars();
        if let (Some(space), Some('-')) = (chars.next(), chars.next())
            && TRIM.contains(&space)
            && chars.as_str().starts_with("}}")
        {
            return (true, true);
        }
        (rest.starts_with("}}"), false)
    }

    fn close(&mut self, trims: bool) {
        let end = self.pos + if trims { 4 } else { 2 };
        self.skip_to(end);
        if trims {
            let spaces = self.rest().len() - self.rest().trim_start_matches(TRIM).len();
            self.skip_to(end + spaces);
        }
    }

    /// Lexes one action up to and with its right delimiter; false ends everything.
    fn action(&mut self) -> bool {
        loop {
            let (ends, trims) = self.at_right_delim();
            if ends {
                if self.parens > 0 {
                    self.fail("unclosed left paren".to_owned());
                    return false;
                }
                let at = if trims { self.pos + 2 } else { self.pos };
                self.tokens.push(Token {
                    kind: Kind::RightDelim,
                    pos: at,
                    line: self.line,
                    text: "}}".to_owned(),
                });
                self.close(trims);
                return true;
            }
            let start = self.pos;
            let Some(c) = self.rest().chars().next() else {
                self.fail("unclosed action".to_owned());
                return false;
            };
            let next = self.rest()[c.len_utf8()..].chars().next();
            let ok = match c {
                ' ' | '\t' | '\r' | '\n' => self.space(),
                '=' => self.one(Kind::Assign, 1),
                ':' if next == Some('=') => self.one(Kind::Declare, 2),
                ':' => self.fail_at("expected :="),
                '|' => self.one(Kind::Pipe, 1),
                ',' => self.one(Kind::Comma, 1),
                '"' => self.quoted('"', Kind::Str, "unterminated quoted string"),
                '\'' => self.quoted('\'', Kind::Char, "unterminated character constant"),
                '`' => self.raw(),
                '$' => self.name(Kind::Variable),
                '.' if next.is_none_or(|n| !n.is_ascii_digit()) => self.name(Kind::Field),
                '.' | '+' | '-' | '0'..='9' => self.number(),
                c if alphanumeric(c) => self.name(Kind::Identifier),
                '(' => {
                    self.parens += 1;
                    self.one(Kind::LeftParen, 1)
                }
                ')' if self.parens == 0 => self.fail_at("unexpected right paren"),
                ')' => {
                    self.parens -= 1;
                    self.one(Kind::RightParen, 1)
                }
                c if c.is_ascii_graphic() => self.one(Kind::Char, 1),
                c => self.fail_at(&format!("unrecognized character in action: {}", unicode_name(c))),
            };
            if !ok {
                return false;
            }
            debug_assert!(self.pos > start, "every token has a length");
        }
    }

    fn one(&mut self, kind: Kind, len: usize) -> bool {
        self.push(kind, self.pos, self.pos + len);
        true
    }

    fn fail_at(&mut self, text: &str) -> bool {
        self.fail(text.to_owned());
        false
    }

    fn space(&mut self) -> bool {
        let mut len = self.rest().len() - self.rest().trim_start_matches(TRIM).len();
        // The blank before a trimming right delimiter belongs to the delimiter.
        if self.rest()[len..].starts_with("-}}") {
            len -= 1;
        }
        if len > 0 {
            self.push(Kind::Space, self.pos, self.pos + len);
        }
        true
    }

    fn quoted(&mut self, end: char, kind: Kind, unterminated: &str) -> bool {
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' if chars.next().is_some_and(|(_, escaped)| escaped != '\n') => {}
                '\\' | '\n' => break,
                c if c == end => return self.one(kind, at + c.len_utf8()),
                _ => {}
            }
        }
        self.fail_at(unterminated)
    }

    fn raw(&mut self) -> bool {
        match self.rest()[1..].find('`') {
            Some(len) => self.one(Kind::RawStr, len + 2),
            None => self.fail_at("unterminated raw quoted string"),
        }
    }

    fn name(&mut self, kind: Kind) -> bool {
        let lead = usize::from(kind != Kind::Identifier);
        let body: usize =
            self.rest()[lead..].chars().take_while(|c| alphanumeric(*c)).map(char::len_utf8).sum();
        let len = lead + body;
        if let Some(bad) = self.rest()[len..].chars().next().filter(|c| !terminates(*c)) {
            // A right delimiter may follow at once; anything else is a typing error.
            if !self.rest()[len..].starts_with("}}") {
                self.pos += len;
                return self.fail_at(&format!("bad character {}", unicode_name(bad)));
            }
        }
        let word = &self.rest()[..len];
        let kind = match (kind, word) {
            (Kind::Field, ".") => Kind::Dot,
            (Kind::Identifier, word) => keyword(word),
            (kind, _) => kind,
        };
        self.one(kind, len)
    }

    fn number(&mut self) -> bool {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with(['+', '-']));
        let body: usize = rest[sign..]
            .chars()
            .scan(' ', |before, c| {
                let exponent = (c == '+' || c == '-') && matches!(*before, 'e' | 'E' | 'p' | 'P');
                let go = c.is_ascii_alphanumeric() || c == '.' || c == '_' || exponent;
                *before = c;
                go.then_some(c.len_utf8())
            })
            .sum();
        let len = sign + body;
        let text = rest[..len].to_owned();
        if body == 0
            || crate::parse::number(&text).is_none()
                && !text[sign..].starts_with(|c: char| c.is_ascii_digit())
        {
            return self.fail_at(&format!("bad number syntax: {}", crate::quote::quote(&text)));
        }
        if crate::parse::number(&text).is_none() {
            return self.fail_at(&format!("bad number syntax: {}", crate::quote::quote(&text)));
        }
        self.one(Kind::Number, len)
    }
}

fn keyword(word: &str) -> Kind {
    match word {
        "block" => Kind::Block,
        "break" => Kind::Break,
        "continue" => Kind::Continue,
        "define" => Kind::Define,
        "else" => Kind::Else,
        "end" => Kind::End,
        "if" => Kind::If,
        "range" => Kind::Range,
        "template" => Kind::Template,
        "with" => Kind::With,
        "nil" => Kind::Nil,
        "true" | "false" => Kind::Bool,
        _ => Kind::Identifier,
    }
}

fn alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn terminates(c: char) -> bool {
    TRIM.contains(&c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '(')
}

/// Go's `%#U`: the code point, and the character if it can be shown.
fn unicode_name(c: char) -> String {
    let code = u32::from(c);
    if c.is_control() { format!("U+{code:04X}") } else { format!("U+{code:04X} '{c}'") }
}
