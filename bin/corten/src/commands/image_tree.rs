//! The lists of `images` that are made for people: a line for each name, or a tree with a line for each platform.

use api_types::image::{ImageSummary, ManifestSummary};

use crate::output::{self, Which, out};
use crate::table::short_id;
use crate::term;
use crate::units::human_size;

const UNTAGGED: &str = "<untagged>";
const SPACING: &str = "   ";
/// Headings and widths of the columns behind the name.
const COLUMNS: [(&str, usize); 4] = [("ID", 12), ("DISK USAGE", 10), ("CONTENT SIZE", 12), ("EXTRA", 5)];
/// A name may become so narrow and no narrower; then columns are left out.
const NAME_MIN: usize = 12;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Line {
    /// Of several names of one image, all but the last have no cells.
    names: Vec<String>,
    /// ID, sizes, and marks.
    cells: [String; 4],
    children: Vec<(String, [String; 4], bool)>,
}

/// Prints the list; with `tree`, each image with its platforms.
pub fn show(images: &[ImageSummary], tree: bool, dangling: bool) {
    let columns = term::columns_of(Which::Stdout);
    if columns.is_none() {
        output::err_bytes(
            b"WARNING: This output is designed for human readability. For machine-readable output, please use --format.\n",
        );
    }
    out(&format!("{}\n\n{}", legend(columns), draw(&lines(images, tree, dangling), columns)));
}

/// What the marks mean, at the right edge.
fn legend(columns: Option<usize>) -> String {
    let text = if columns.is_some() { "i Info →  U In Use " } else { "Info ->  U In Use " };
    let width = columns.filter(|columns| *columns > 0).unwrap_or(80).max(20);
    format!("{text:>width$}")
}

fn size(bytes: i64) -> String {
    human_size(bytes as f64, 3)
}

fn mark(used: bool) -> String {
    if used { "U".to_owned() } else { String::new() }
}

fn lines(images: &[ImageSummary], tree: bool, dangling: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for image in images {
        let mut names: Vec<String> = image.repo_tags.clone().unwrap_or_default();
        names.retain(|name| name != "<none>:<none>");
        if names.is_empty() && !dangling {
            continue;
        }
        if names.is_empty() {
            names.push(UNTAGGED.to_owned());
        }
        let manifests = image.manifests.iter().flatten();
        let parts: Vec<&ManifestSummary> = manifests.filter(|one| one.image_data.is_some()).collect();
        let is_used =
            |one: &ManifestSummary| one.image_data.as_ref().is_some_and(|data| !data.containers.is_empty());
        let used = image.containers > 0 || parts.iter().any(|one| is_used(one));
        let content = parts.iter().map(|one| one.size.content).sum();
        let cells = [short_id(&image.id), size(image.size), size(content), mark(used)];
        if !tree {
            let line = |name| Line { names: vec![name], cells: cells.clone(), children: Vec::new() };
            lines.extend(names.into_iter().map(line));
            continue;
        }
        let children = parts.iter().map(|one| {
            let platform = one.image_data.as_ref().map(|data| {
                let platform = &data.platform;
                oci::Platform::new(&platform.os, &platform.architecture, &platform.variant).to_string()
            });
            let cells = [short_id(&one.id), size(one.size.total), size(one.size.content), mark(is_used(one))];
            (platform.unwrap_or_default(), cells, one.available)
        });
        lines.push(Line { names, cells, children: children.collect() });
    }
    lines.sort_by(|a, b| (a.names[0] == UNTAGGED, &a.names).cmp(&(b.names[0] == UNTAGGED, &b.names)));
    lines
}

fn draw(lines: &[Line], columns: Option<usize>) -> String {
    let paint = Paint { on: columns.is_some() && std::env::var_os("NO_COLOR").is_none() };
    let names = lines.iter().flat_map(|line| line.names.iter().map(|name| name.chars().count()));
    let children =
        lines.iter().flat_map(|line| line.children.iter().map(|child| child.0.chars().count() + 3));
    let mut width = names.chain(children).max().unwrap_or(0).max("IMAGE".len());
    let mut shown = COLUMNS.len();
    if let Some(columns) = columns.filter(|columns| *columns > 0) {
        let mut left = columns.max(20);
        for (number, (_, column)) in COLUMNS.iter().enumerate() {
            let taken = column + SPACING.len();
            if left < taken + NAME_MIN {
                shown = number;
                break;
            }
            left -= taken;
        }
        width = width.min(left);
    }
    let mut text = String::new();
    let headings = COLUMNS.map(|(heading, _)| heading.to_owned());
    text += &row(&paint, Style::Bold, Style::Bold, "IMAGE", &headings, width, shown);
    for line in lines {
        let style = if line.names[0] == UNTAGGED { Style::Faint } else { Style::Name };
        for name in &line.names[..line.names.len() - 1] {
            text += paint.apply(style, &cut(name, width)).trim_end();
            text.push('\n');
        }
        let last = &line.names[line.names.len() - 1];
        text += &row(&paint, style, Style::Plain, last, &line.cells, width, shown);
        for (number, (platform, cells, available)) in line.children.iter().enumerate() {
            let branch = if number + 1 == line.children.len() { "└─ " } else { "├─ " };
            let style = if *available { Style::Plain } else { Style::Faint };
            text += &row(&paint, style, style, &format!("{branch}{platform}"), cells, width, shown);
        }
        if lines.iter().any(|line| !line.children.is_empty()) {
            text.push('\n');
        }
    }
    text
}

fn row(
    paint: &Paint,
    name_style: Style,
    style: Style,
    name: &str,
    cells: &[String; 4],
    width: usize,
    shown: usize,
) -> String {
    let name = cut(name, width);
    let mut text = paint.apply(name_style, &name);
    text += &" ".repeat(width - name.chars().count());
    for (number, (cell, (_, column))) in cells.iter().zip(COLUMNS).take(shown).enumerate() {
        let cell = cut(cell, column);
        let fill = column - cell.chars().count();
        // Numbers stand to the right, and marks in the middle.
        let (before, after) = match number {
            0 => (0, fill),
            3 => (fill / 2, fill - fill / 2),
            _ => (fill, 0),
        };
        text += &format!("{SPACING}{}{}{}", " ".repeat(before), paint.apply(style, &cell), " ".repeat(after));
    }
    format!("{}\n", text.trim_end())
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(3)).collect();
    format!("{kept}...")
}

#[derive(Debug, Clone, Copy)]
enum Style {
    Plain,
    Bold,
    Name,
    Faint,
}

struct Paint {
    on: bool,
}

impl Paint {
    fn apply(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => "",
            Style::Bold => "\x1b[1m",
            Style::Name => "\x1b[34;1m",
            Style::Faint => "\x1b[2m",
        };
        if !self.on || code.is_empty() || text.is_empty() {
            return text.to_owned();
        }
        format!("{code}{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::image::{ManifestImage, ManifestSize};
    use api_types::registry::Platform;

    fn image(names: &[&str], platforms: &[(&str, bool)], containers: i64) -> ImageSummary {
        let manifest = |(architecture, available): &(&str, bool)| ManifestSummary {
            id: format!("sha256:{}", "ab".repeat(32)),
            available: *available,
            size: if *available {
                ManifestSize { total: 5_000_000, content: 1_000_000 }
            } else {
                ManifestSize::default()
            },
            kind: "image".into(),
            image_data: Some(ManifestImage {
                platform: Platform {
                    architecture: (*architecture).into(),
                    os: "linux".into(),
                    ..Platform::default()
                },
                ..ManifestImage::default()
            }),
            ..ManifestSummary::default()
        };
        ImageSummary {
            id: format!("sha256:{}", "cd".repeat(32)),
            repo_tags: Some(names.iter().map(|&name| name.to_owned()).collect()),
            size: 4_000_000,
            containers,
            manifests: Some(platforms.iter().map(manifest).collect()),
            ..ImageSummary::default()
        }
    }

    #[test]
    fn a_line_for_each_name() {
        let images = [
            image(&["web:2", "web:1"], &[("amd64", true)], 0),
            image(&["a:1"], &[("amd64", true)], 1),
            image(&[], &[], 0),
        ];
        assert_eq!(
            draw(&lines(&images, false, false), None),
            "IMAGE   ID             DISK USAGE   CONTENT SIZE   EXTRA\n\
             a:1     cdcdcdcdcdcd          4MB            1MB     U\n\
             web:1   cdcdcdcdcdcd          4MB            1MB\n\
             web:2   cdcdcdcdcdcd          4MB            1MB\n"
        );
        assert!(
            draw(&lines(&images, false, true), None)
                .ends_with("<untagged>   cdcdcdcdcdcd          4MB             0B\n")
        );
    }

    #[test]
    fn a_branch_for_each_platform() {
        let images = [image(&["web:1", "web:2"], &[("amd64", true), ("arm64", false)], 0)];
        assert_eq!(
            draw(&lines(&images, true, false), None),
            "IMAGE            ID             DISK USAGE   CONTENT SIZE   EXTRA\n\
             web:1\n\
             web:2            cdcdcdcdcdcd          4MB            1MB\n\
             ├─ linux/amd64   abababababab          5MB            1MB\n\
             └─ linux/arm64   abababababab           0B             0B\n\n"
        );
    }

    #[test]
    fn a_narrow_terminal_has_fewer_columns() {
        let images = [image(&["a-rather-long-name:1"], &[], 0)];
        let text = draw(&lines(&images, false, false), Some(30));
        assert!(text.contains("a-rather-lon...") && !text.contains("DISK USAGE"), "{text}");
    }
}
