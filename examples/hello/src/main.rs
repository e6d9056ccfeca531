//! The first container: says hello and tells what the world looks like from inside.
//!
//! It is built static, so that an image holds nothing but this one file.

use std::fs;

fn main() {
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello.".to_owned());
    println!("{greeting}\n");
    println!("From in here the world looks like this:");
    println!("  I am process      {}", std::process::id());
    println!("  of                {}", processes());
    println!("  on a host named   {}", first_line("/proc/sys/kernel/hostname"));
    println!("  with the kernel   {}", first_line("/proc/sys/kernel/osrelease"));
    println!("  my root is an     {}", root_filesystem());
    println!("  it holds          {}", root_entries());
    println!("  my network links  {}", links());
    println!("  memory            {}", memory());
    println!("\nNo other engine, no network and no base image were needed.");
}

/// The first line of a file, or a dash when it cannot be read.
fn first_line(path: &str) -> String {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.lines().next().map(|line| line.trim().to_owned()))
        .unwrap_or_else(|| "-".to_owned())
}

/// How many processes `/proc` shows.
fn processes() -> String {
    let numeric = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    match entries("/proc").iter().filter(|name| numeric(name)).count() {
        0 => "-".to_owned(),
        1 => "1, alone".to_owned(),
        count => count.to_string(),
    }
}

fn root_filesystem() -> String {
    // Fields of /proc/self/mounts: source, target, type, options.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(1) == Some(&"/"))
        .and_then(|fields| fields.get(2).map(|kind| (*kind).to_owned()))
        .unwrap_or_else(|| "-".to_owned())
}

fn root_entries() -> String {
    entries("/").join(" ")
}

fn links() -> String {
    // Two header lines, then one `name: counters` line per link.
    let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names: Vec<_> =
        table.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    names.join(" ")
}

/// Physical memory, and the container's own limit when it has one.
fn memory() -> String {
    let total = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or("-".to_owned(), |kib| format!("{} MiB", kib / 1024));
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| first_line(path).parse::<u64>().ok())
        .filter(|bytes| *bytes < 1 << 60);
    match limit {
        Some(bytes) => format!("{} MiB of {total}", bytes >> 20),
        None => total,
    }
}

fn entries(path: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .map(|list| list.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}
