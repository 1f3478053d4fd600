use similar::TextDiff;

/// The changes as a unified diff with three lines of context (`patronictl.md` §7.5). Empty when there are
/// none. Ends with a newline.
pub(crate) fn unified(before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    diff.unified_diff()
        .context_radius(3)
        .header("", "")
        .missing_newline_hint(false)
        .to_string()
}

/// The same for a terminal.
pub(crate) fn coloured(diff: &str) -> String {
    const RESET: &str = "\u{1b}[0m";
    let paint = |line: &str| match line.as_bytes().first() {
        _ if line.starts_with("---") || line.starts_with("+++") => {
            format!("\u{1b}[1m{line}{RESET}\n")
        }
        Some(b'@') => format!("\u{1b}[36m{line}{RESET}\n"),
        Some(b'+') => format!("\u{1b}[32m{line}{RESET}\n"),
        Some(b'-') => format!("\u{1b}[31m{line}{RESET}\n"),
        _ => format!("{line}\n"),
    };
    diff.lines().map(paint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "loop_wait: 10\nmaximum_lag_on_failover: 1048576\npostgresql:\n  parameters:\n    max_connections: 50\n  use_pg_rewind: true\nretry_timeout: 10\nttl: 30\n";

    #[test]
    fn diff_is_what_people_know() {
        let after = BEFORE.replace(" 50", " 60");
        assert_eq!(
            unified(BEFORE, &after),
            "--- \n+++ \n@@ -2,7 +2,7 @@\n maximum_lag_on_failover: 1048576\n postgresql:\n   parameters:\n-    max_connections: 50\n+    max_connections: 60\n   use_pg_rewind: true\n retry_timeout: 10\n ttl: 30\n"
        );
        assert_eq!(unified(BEFORE, BEFORE), "");
    }

    #[test]
    fn lines_without_an_end_are_ended() {
        assert_eq!(unified("a\n", "b"), "--- \n+++ \n@@ -1 +1 @@\n-a\n+b\n");
    }
}
