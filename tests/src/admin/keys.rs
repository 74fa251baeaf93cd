//! The keys of JSON answers, and those that a document says there are.

use std::collections::BTreeSet;

use serde_json::Value;

/// Every key with the way to it: `servers[].disks[].path`. An array without elements has none below it, and is named
/// with `[]` at its end.
#[must_use]
pub fn keys_of(json: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    walk(json, "", &mut keys);
    keys
}

fn walk(json: &Value, at: &str, keys: &mut BTreeSet<String>) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                walk(value, &at, keys);
            }
        }
        Value::Array(elements) if elements.is_empty() => {
            keys.insert(format!("{at}[]"));
        }
        Value::Array(elements) => elements.iter().for_each(|element| walk(element, &format!("{at}[]"), keys)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            keys.insert(at.to_owned());
        }
    }
}

/// The keys in the tables of the section of `markdown` whose heading names the route: the first cell of each row, in
/// backquotes.
#[must_use]
pub fn documented(markdown: &str, route: &str) -> BTreeSet<String> {
    let heading = format!("## `{route}`");
    let section = markdown.lines().skip_while(|line| *line != heading).skip(1);
    let section = section.take_while(|line| !line.starts_with("## "));
    let key = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    section.filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_at_both_ends() {
        let json = serde_json::json!({"a": 1, "b": [{"c": null}, {"d": "x"}], "e": [], "f": [["k", "v"]]});
        let is: Vec<String> = keys_of(&json).into_iter().collect();
        assert_eq!(is, ["a", "b[].c", "b[].d", "e[]", "f[][]"]);
        let text = "# API\n## `/x`\n| key | what |\n|---|---|\n| `a` | one |\n| `b[].c` | two |\n## `/y`\n| `z` | no |\n";
        let says: Vec<String> = documented(text, "/x").into_iter().collect();
        assert_eq!(says, ["a", "b[].c"]);
    }
}
