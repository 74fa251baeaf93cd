//! Errors for people.

use std::error::Error;

/// An error with its causes on one line, each said once: many a type names its cause in its own words already.
#[must_use]
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()) {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const ENOENT: i32 = 2;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("disk d: {source}")]
        Names { source: io::Error },
        #[error("no start")]
        Hides(#[source] io::Error),
    }

    #[test]
    fn each_cause_is_said_once() {
        let cause = || io::Error::from_raw_os_error(ENOENT);
        let words = cause().to_string();
        assert_eq!(in_words(&Outer::Names { source: cause() }), format!("disk d: {words}"));
        assert_eq!(in_words(&Outer::Hides(cause())), format!("no start: {words}"));
    }
}
