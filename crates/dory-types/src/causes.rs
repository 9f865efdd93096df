//! An error with everything that caused it, in one line.

use std::error::Error;

/// The messages of `error` and of everything below it, joined as Go joins wrapped errors: clients of Docker look for
/// words in the whole of it.
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Failed(&'static str, Option<Box<Failed>>);

    impl fmt::Display for Failed {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.0)
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &dyn Error)
        }
    }

    #[test]
    fn names_every_cause() {
        let error =
            Failed("start", Some(Box::new(Failed("mount", Some(Box::new(Failed("no such file", None)))))));
        assert_eq!(with_causes(&error), "start: mount: no such file");
        assert_eq!(with_causes(&Failed("alone", None)), "alone");
    }
}
