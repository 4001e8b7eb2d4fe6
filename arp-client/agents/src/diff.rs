//! Unified diffs for edit cards, from what the agents give: two texts, or a whole new or deleted file.

use similar::TextDiff;

/// Texts longer than this together are not compared line by line (a diff of them helps nobody on a card, and
/// comparing takes time that grows with their product).
const MAX_COMPARED_BYTES: usize = 512 * 1024;

/// Lines of context around a change.
const CONTEXT_LINES: usize = 3;

/// The hunks that lead from `old` to `new`; no file header. Empty when nothing changes.
///
/// Line numbers count within the texts given, which are whole files; parts of one are for [`fragment`].
#[must_use]
pub fn unified(old: &str, new: &str) -> String {
    if old.len() + new.len() > MAX_COMPARED_BYTES {
        return replaced(old, new);
    }
    let diff = TextDiff::from_lines(old, new);
    diff.unified_diff()
        .context_radius(CONTEXT_LINES)
        .missing_newline_hint(false)
        .to_string()
}

/// As [`unified`], for texts that are parts of a file: where in it they stand is not known, so no hunk says.
#[must_use]
pub fn fragment(old: &str, new: &str) -> String {
    let mut out = String::new();
    for line in unified(old, new).split_inclusive('\n') {
        // Lines of the texts begin with their mark, so only heads of hunks begin so.
        out.push_str(if line.starts_with("@@ ") { "@@\n" } else { line });
    }
    out
}

/// All of `old` taken away and all of `new` put in, without looking for what they share.
fn replaced(old: &str, new: &str) -> String {
    let (removed, added) = (old.lines().count(), new.lines().count());
    let mut out = format!("@@ -{},{removed} +{},{added} @@\n", removed.min(1), added.min(1));
    for (mark, text) in [('-', old), ('+', new)] {
        for line in text.lines() {
            out.push(mark);
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_hunks_without_a_header() {
        assert_eq!(
            unified("a\nb\nc\n", "a\nB\nc\n"),
            "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"
        );
    }

    #[test]
    fn a_part_of_a_file_has_no_line_numbers() {
        assert_eq!(
            fragment("a\n@@ -1 +1 @@\n", "b\n@@ -1 +1 @@\n"),
            "@@\n-a\n+b\n @@ -1 +1 @@\n"
        );
    }

    #[test]
    fn a_new_file_is_all_additions() {
        assert_eq!(unified("", "hi\n"), "@@ -0,0 +1 @@\n+hi\n");
    }

    #[test]
    fn a_missing_last_newline_does_not_glue_lines() {
        assert_eq!(unified("# demo", "# demo2"), "@@ -1 +1 @@\n-# demo\n+# demo2\n");
    }

    #[test]
    fn huge_texts_are_not_compared() {
        let old = "x\n".repeat(MAX_COMPARED_BYTES);
        let hunk = unified(&old, "y\n");
        assert!(hunk.starts_with("@@ -1,524288 +1,1 @@\n-x\n"), "{}", &hunk[..40]);
        assert!(hunk.ends_with("-x\n+y\n"));
    }
}
