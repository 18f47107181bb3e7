//! [`Name`]: the name of a part of the program in the log and in `log_level`.
//!
//! The name is the path of the part's module, without the folders that only group modules. So a
//! module can move to another folder and keep its name.

use std::fmt;

/// The name of a part, in two pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name<'t>(&'t str, &'t str);

impl<'t> Name<'t> {
    /// The name of the part with this log target.
    pub(super) fn of(target: &'t str) -> Name<'t> {
        let Some(inside) = target.strip_prefix(PROGRAM) else { return Name("", target) };
        let folder = FOLDERS.iter().find(|(folder, _)| inside.starts_with(folder));
        Name(PROGRAM, folder.map_or(inside, |(_, left_out)| &inside[left_out.len()..]))
    }

    /// Whether the name is `part`, or a module within it.
    pub(super) fn is_of(self, part: &str) -> bool {
        let Name(first, second) = self;
        let rest = match part.strip_prefix(first) {
            Some(part) => second.strip_prefix(part),
            None => first.strip_prefix(part),
        };
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)?;
        f.write_str(self.1)
    }
}

const PROGRAM: &str = "raybox::";
/// The prefixes of paths within the program, and the remainder of each.
const FOLDERS: [(&str, &str); 7] = [
    ("admission::requests", "admission::"),
    ("base::", "base::"),
    ("operation::", "operation::"),
    ("routing::", "routing::"),
    ("server::accounts", "server::"),
    ("server::jobs", "server::"),
    ("store::outages", "store::"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_leave_out_folders() {
        for (target, name) in [
            ("raybox::routing::router", "raybox::router"),
            ("raybox::server::jobs::logins", "raybox::jobs::logins"),
            ("raybox::server", "raybox::server"),
            ("raybox::store::sqlite::ids", "raybox::store::sqlite::ids"),
            ("raybox", "raybox"),
            ("net::acceptor", "net::acceptor"),
        ] {
            assert_eq!(Name::of(target).to_string(), name);
        }
    }

    #[test]
    fn a_part_is_its_module_and_what_is_inside() {
        let name = Name::of("raybox::routing::router::inner");
        for part in ["raybox", "raybox::router", "raybox::router::inner"] {
            assert!(name.is_of(part), "{part}");
        }
        for part in
            ["ray", "raybox::", "raybox::route", "raybox::routing", "raybox::router::inner::more", "router", "net"]
        {
            assert!(!name.is_of(part), "{part}");
        }
        assert!(Name::of("net::link").is_of("net") && !Name::of("network").is_of("net"));
    }
}
