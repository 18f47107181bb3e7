//! [`Sampling`]: the messages that are traced.

use std::fmt;

/// The share of keys that are traced: one in this number, or none if it is 0. A key is a
/// conversation, or a recipient where there is no conversation.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Sampling(pub u32);

impl Sampling {
    /// Nothing is traced.
    pub const OFF: Sampling = Sampling(0);
    /// Everything is traced.
    pub const ALL: Sampling = Sampling(1);

    /// Reads `off`, `all` or `1/N`, with N from 2 to a million.
    pub fn parse(text: &str) -> Option<Sampling> {
        match text {
            "off" => Some(Sampling::OFF),
            "all" => Some(Sampling::ALL),
            _ => {
                let digits = text.strip_prefix("1/").filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))?;
                digits.parse().ok().filter(|n| (2..=ONE_IN_MAX).contains(n)).map(Sampling)
            }
        }
    }
}

impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("off"),
            1 => f.write_str("all"),
            n => write!(f, "1/{n}"),
        }
    }
}

/// Formats it on one line, like every setting.
impl fmt::Debug for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const ONE_IN_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampling_is_read_as_it_is_written() {
        for text in ["off", "all", "1/2", "1/1000000"] {
            assert_eq!(Sampling::parse(text).map(|sampling| sampling.to_string()), Some(text.to_owned()));
        }
        for text in ["", "on", "1", "1/", "1/0", "1/1", "2/3", "1/+2", "1/1000001", "1/99999999999"] {
            assert_eq!(Sampling::parse(text), None, "{text}");
        }
    }
}
