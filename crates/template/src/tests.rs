//! Tables of templates with what Go prints for them.

use serde_json::{Value, json};

use crate::{Field, MissingKey, NoMethods, Template, Type, Val};

fn run(template: &str, data: &Value) -> String {
    match Template::parse("", template).and_then(|parsed| parsed.execute(data, MissingKey::NoValue)) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

fn data() -> Value {
    json!({
        "Name": "web", "N": 7, "F": 1.5, "T": true, "Z": 0, "E": "", "Nil": null,
        "L": ["a", "b", "c"], "Nums": [1, 2, 3], "M": {"b": 2, "a": 1},
        "O": {"In": {"Deep": "x"}}, "Html": "<a href='x'>&\"", "Mixed": ["a", 1, null, {"k": [true]}],
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": null},
    })
}

#[test]
fn outputs() {
    let data = data();
    for (template, expected) in [
        ("plain", "plain"),
        ("{{.Name}}-{{.N}}-{{.F}}-{{.T}}", "web-7-1.5-true"),
        ("{{.Missing}}|{{.Nil}}", "<no value>|<no value>"),
        ("{{.L}} {{.M}} {{.O}}", "[a b c] map[a:1 b:2] map[In:map[Deep:x]]"),
        ("{{.Mixed}}", "[a 1 <nil> map[k:[true]]]"),
        ("{{.O.In.Deep}} {{(.O.In).Deep}} {{$.Name}}", "x x web"),
        ("a  {{- .N -}}  b", "a7b"),
        ("a {{/* gone */}} b{{- /* x */ -}} c", "a  bc"),
        ("{{if .Z}}yes{{else if .T}}else{{else}}no{{end}}", "else"),
        ("{{if and .T .Name}}1{{end}}{{if or .Z .E}}2{{else}}3{{end}}{{not .Z}}", "13true"),
        ("{{range .L}}<{{.}}>{{end}}", "<a><b><c>"),
        ("{{range $i, $e := .L}}{{$i}}={{$e}},{{end}}", "0=a,1=b,2=c,"),
        ("{{range $k, $v := .M}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
        ("{{range .Nil}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}{{range $i := 2}}{{$i}}{{end}}", "01201"),
        ("{{range .L}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}", "ac"),
        ("{{range .L}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
        ("{{with .O.In}}{{.Deep}}{{end}}{{with .E}}x{{else}}y{{end}}", "xy"),
        ("{{with .E}}x{{else with .Name}}{{.}}{{end}}", "web"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("{{define \"t\"}}[{{.}}]{{end}}{{template \"t\" .Name}}{{template \"t\" 5}}", "[web][5]"),
        ("{{block \"b\" .Name}}<{{.}}>{{end}}", "<web>"),
        (
            "{{index .L 1}} {{index .M \"a\"}} {{index .M \"zz\"}} {{index .O \"In\" \"Deep\"}}",
            "b 1 <no value> x",
        ),
        ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
        (
            "{{range $p, $c := .Ports}}{{$p}}->{{(index $c 0).HostPort}} {{break}}{{end}}",
            "error: template: :1:37: executing \"\" at <index $c 0>: error calling index: index of untyped nil",
        ),
        ("{{slice .L 1}} {{slice .Name 0 2}} {{len .L}} {{len .Name}} {{len .M}}", "[b c] we 3 3 2"),
        ("{{print 1 2 \"x\" 3 4}} {{println \"a\" 1}}", "1 2x3 4 a 1\n"),
        (
            "{{html .Html}}|{{js .Html}}|{{urlquery \"a b&c\"}}",
            "&lt;a href=&#39;x&#39;&gt;&amp;&#34;|\\u003Ca href\\u003D\\'x\\'\\u003E\\u0026\\\"|a+b%26c",
        ),
        (
            "{{eq .N 7}}{{ne .N 7}}{{lt 1 2}}{{le 2 2}}{{gt 1 2}}{{ge \"b\" \"a\"}}",
            "truefalsetruetruefalsetrue",
        ),
        ("{{eq .Name \"x\" \"web\"}}", "true"),
        ("{{.Name | printf \"%s-%s\" \"a\" | upper}}", "A-WEB"),
        ("{{json .M}} {{json .Html}} {{json .Missing}}", "{\"b\":2,\"a\":1} \"<a href='x'>&\\\"\" null"),
        (
            "{{join (split \"a:b:c\" \":\") \"/\"}} {{join .L \",\"}} {{split \"a.b\" \".\"}}",
            "a/b/c a,b,c [a b]",
        ),
        ("{{title \"hello big-world\"}}{{lower \"ABC\"}}{{upper \"abc\"}}", "Hello Big-WorldabcABC"),
        (
            "[{{pad .Name 2 3}}][{{pad .E 2 2}}][{{truncate .Name 2}}][{{truncate .Name 9}}]",
            "[  web   ][][we][web]",
        ),
        ("{{\"quoted \\\"x\\\" \\u00e9\\n\"}}{{`raw\\n`}}{{'a'}}", "quoted \"x\" é\nraw\\n97"),
        ("{{1e3}} {{0x10}} {{-5}} {{1.50}} {{1_000}}", "1000 16 -5 1.5 1000"),
        ("{{/* only a comment */}}", ""),
        ("{{- 3 -}}", "3"),
        ("{{.Name}}\n{{- range .L}}\n{{.}}{{end}}", "web\na\nb\nc"),
    ] {
        assert_eq!(run(template, &data), expected, "template {template}");
    }
}

#[test]
fn printf_verbs() {
    let data = data();
    for (template, expected) in [
        (r#"{{printf "%s|%q|%v|%x|%X" .Name .Name .Name .Name .Name}}"#, "web|\"web\"|web|776562|776562"),
        (
            r#"{{printf "%d|%5d|%-5d|%05d|%+d|%x|%o|%b|%c|%U" 42 42 42 42 42 42 8 5 65 65}}"#,
            "42|   42|42   |00042|+42|2a|10|101|A|U+0041",
        ),
        (
            r#"{{printf "%t|%v|%10s|%-6s|%.2s|" true false "x" "y" "abc"}}"#,
            "true|false|         x|y     |ab|",
        ),
        (
            r#"{{printf "%f|%.2f|%8.3f|%e|%g|%v" 1.5 1.005 3.14159 12345.678 0.00001 1e21}}"#,
            "1.500000|1.00|   3.142|1.234568e+04|1e-05|1e+21",
        ),
        (r#"{{printf "%v %v %+v" .L .M .M}}"#, "[a b c] map[a:1 b:2] map[a:1 b:2]"),
        (r#"{{printf "%d" "x"}} {{printf "%s" 5}} {{printf "%z" 1}}"#, "%!d(string=x) %!s(int=5) %!z(int=1)"),
        (
            r#"{{printf "%d"}} {{printf "x" 1 "a"}} {{printf "%"}} {{printf "100%%"}}"#,
            "%!d(MISSING) x%!(EXTRA int=1, string=a) %!(NOVERB) 100%",
        ),
        (r#"{{printf "%*d|%[2]s %[1]s" 5 42}}"#, "   42|%!s(int=42) %!s(int=5)"),
        (r#"{{printf "%v %s" .Nil nil}}"#, "<nil> %!s(<nil>)"),
        (r#"{{printf "%T %T %T" 1 "a" 1.5}}"#, "int string float64"),
        (r#"{{printf "%q" .L}} {{printf "%03d" -5}}"#, "[\"a\" \"b\" \"c\"] -05"),
    ] {
        assert_eq!(run(template, &data), expected, "template {template}");
    }
}

#[test]
fn parse_errors() {
    for (template, expected) in [
        ("{{", "template: :1: unclosed action"),
        ("{{.Foo", "template: :1: unclosed action"),
        ("{{if .X}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{foo}}", "template: :1: function \"foo\" not defined"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("{{$x}}", "template: :1: undefined variable \"$x\""),
        ("{{\"abc}}", "template: :1: unterminated quoted string"),
        ("{{(.X}}", "template: :1: unclosed left paren"),
        ("{{.X)}}", "template: :1: unexpected right paren"),
        ("{{.X | 1}}", "template: :1: non executable command in pipeline stage 2"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{\"x\".Y}}", "template: :1: unexpected <.Y> in operand"),
        ("\n{{.X }", "template: :2: unexpected \"}\" in operand"),
        ("{{/* x", "template: :1: unclosed comment"),
        ("{{.X |}}", "template: :1: missing value for command"),
    ] {
        let error = Template::parse("", template).expect_err(template).to_string();
        if template == "{{\"x\".Y}}" {
            assert!(error.contains("unexpected . after term"), "{error}");
            continue;
        }
        assert_eq!(error, expected, "template {template}");
    }
}

#[test]
fn execution_errors() {
    let data = data();
    for (template, expected) in [
        (
            "{{.Name.X}}",
            "template: :1:7: executing \"\" at <.Name.X>: can't evaluate field X in type interface {}",
        ),
        ("{{.Nil.X}}", "template: :1:6: executing \"\" at <.Nil.X>: nil pointer evaluating interface {}.X"),
        (
            "{{index .L 9}}",
            "template: :1:2: executing \"\" at <index .L 9>: error calling index: index out of range: 9",
        ),
        (
            "{{template \"q\"}}",
            "template: :1:11: executing \"\" at <{{template \"q\"}}>: template \"q\" not defined",
        ),
        ("{{len 3}}", "template: :1:2: executing \"\" at <len 3>: error calling len: len of type int"),
        (
            "{{call .Name}}",
            "template: :1:2: executing \"\" at <call .Name>: error calling call: non-function .Name of type string",
        ),
        ("{{truncate 5 1}}", "template: :1:11: executing \"\" at <5>: expected string; found 5"),
        (
            "{{upper .N}}",
            "template: :1:8: executing \"\" at <.N>: wrong type for value; expected string; got int",
        ),
        (
            "{{lt 1 .F}}",
            "template: :1:2: executing \"\" at <lt 1 .F>: error calling lt: incompatible types for comparison",
        ),
        ("{{len}}", "template: :1:2: executing \"\" at <len>: wrong number of args for len: want 1 got 0"),
        ("{{.Name 1}}", "template: :1:2: executing \"\" at <.Name>: Name is not a method but has arguments"),
        ("{{range .Name}}{{end}}", "template: :1:8: executing \"\" at <.Name>: range can't iterate over web"),
    ] {
        let error = run(template, &data);
        let error = error.strip_prefix("error: ").unwrap_or_else(|| panic!("{template} printed {error}"));
        assert_eq!(error, expected, "template {template}");
    }
    let parsed = Template::parse("", "{{.Foo}}").expect("valid");
    let error = parsed.execute(&data, MissingKey::Error).expect_err("missing");
    assert_eq!(
        error.to_string(),
        "template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""
    );
}

static HEALTH: Type = Type::Struct("container.Health", &[Field::same("Status", &Type::Str)]);
static STATE: Type = Type::Struct(
    "container.State",
    &[
        Field::same("Pid", &Type::Int),
        Field::same("Health", &Type::Ptr(&HEALTH)),
        Field::same("Oom", &Type::Bool),
    ],
);
static ROOT: Type = Type::Ptr(&Type::Struct(
    "container.InspectResponse",
    &[
        Field::keyed("ID", "Id", &Type::Str),
        Field::same("State", &Type::Ptr(&STATE)),
        Field::same("Args", &Type::Slice(&Type::Str)),
        Field::same("Labels", &Type::Map(&Type::Str)),
    ],
));

#[test]
fn typed_values_have_zero_values() {
    let data = json!({"Id": "abc", "State": {"Pid": 3}, "Args": null});
    let run = |template: &str| {
        Template::parse("", template)
            .and_then(|parsed| {
                parsed.execute_typed(Val::typed(&data, &ROOT), MissingKey::NoValue, &NoMethods)
            })
            .unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(run("{{.ID}} {{.State.Health}} {{.State.Oom}}"), "abc <nil> false");
    assert_eq!(run("{{.Args}} {{.Labels}} {{len .Labels}} {{json .Args}}"), "[] map[] 0 null");
    assert_eq!(run("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}"), "none");
    assert_eq!(run("{{.State}}"), "{3 <nil> false}");
    assert_eq!(run("{{print .State}}"), "&{3 <nil> false}");
    assert!(run("{{.State.Health.Status}}").contains("nil pointer evaluating *container.Health.Status"));
    assert!(run("{{.Foo}}").contains("can't evaluate field Foo in type *container.InspectResponse"));
}

#[test]
fn header_pass_hands_names_through() {
    let data = json!({"ID": "CONTAINER ID"});
    let parsed =
        Template::parse("", "{{truncate .ID 3}} {{upper .ID}} {{json .ID}}").expect("valid").for_header();
    assert_eq!(
        parsed.execute(&data, MissingKey::NoValue).expect("runs"),
        "CONTAINER ID CONTAINER ID CONTAINER ID"
    );
}

#[test]
fn bounds_hold() {
    let endless = "{{define \"t\"}}{{template \"t\" .}}{{end}}{{template \"t\" .}}";
    assert!(run(endless, &Value::Null).contains("exceeded maximum template depth"));
    let nested = "(".repeat(5000);
    assert!(Template::parse("", &format!("{{{{{nested}")).is_err());
    let ifs = "{{if .}}".repeat(5000);
    assert!(Template::parse("", &ifs).is_err());
    assert!(run("{{pad \"x\" 99999999999 1}}", &Value::Null).contains("too wide"));
    assert!(
        run("{{range 100000}}{{range 100000}}{{printf \"%900000d\" 1}}{{end}}{{end}}", &Value::Null)
            .contains("too large")
    );
}

mod properties {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_parses_or_refuses(text in "\\PC{0,80}") {
            if let Ok(template) = crate::Template::parse("", &text) {
                let _ = template.execute(&super::data(), crate::MissingKey::NoValue);
            }
        }

        #[test]
        fn template_like_text_never_panics(words in proptest::collection::vec(prop_oneof![
            Just("{{"), Just("}}"), Just(" -}}"), Just("{{- "), Just("if"), Just("range"), Just("end"), Just("else"),
            Just("with"), Just(" .L "), Just("$x"), Just(":="), Just("|"), Just("("), Just(")"), Just("index"),
            Just("printf"), Just("\"%d %v\""), Just("1"), Just(".M.a"), Just("define"), Just("template"), Just("\"t\""),
            Just("slice"), Just("break"), Just("len"), Just(" "), Just("-5"), Just("{{end}}"), Just("nil"), Just("é"),
        ], 0..24)) {
            let text = words.concat();
            if let Ok(template) = crate::Template::parse("", &text) {
                let _ = template.execute(&super::data(), crate::MissingKey::Error);
            }
        }

        #[test]
        fn text_without_delimiters_is_itself(text in "[^{}]{0,60}") {
            let template = crate::Template::parse("", &text).expect("plain text");
            prop_assert_eq!(template.execute(&serde_json::Value::Null, crate::MissingKey::NoValue).expect("runs"), text);
        }

        #[test]
        fn quoting_round_trips(text in "\\PC{0,40}") {
            prop_assert_eq!(crate::quote::unquote(&crate::quote(&text)), Some(text));
        }

        #[test]
        fn sprintf_never_panics(format in "[-+# 0-9.*%dsvqxXtfegcUT\\[\\]]{0,20}") {
            let data = super::data();
            let template = crate::Template::parse("", "{{printf .Fmt .N .Name .F .L}}").expect("valid");
            let mut data = data;
            data["Fmt"] = serde_json::Value::from(format);
            let _ = template.execute(&data, crate::MissingKey::NoValue);
        }
    }
}
