//! Settings from the environment: variables that begin with `RAYBOX_`.
//!
//! Kubernetes puts the addresses of every service into every pod, and Docker those of linked
//! containers. If a service is called `raybox`, or `raybox-` and something, these variables begin
//! with our prefix. They must not prevent the start, while a typing error in the name of a setting
//! must.

use std::ffi::OsString;

use super::error::{ConfigError, SettingSource};
use super::key::{Key, VARIABLE_PREFIX, apply};
use super::keys;
use super::settings::Config;
use super::spelling::nearest;

/// Applies the values of all variables. Notes name the variables that are not used.
///
/// # Errors
///
/// A value that is invalid for its setting, or a name that is similar to one of a setting.
pub(super) fn apply_all(
    config: &mut Config,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    let (mut services, mut unknown) = (Vec::new(), Vec::new());
    for (name, value) in env {
        let name = name.to_string_lossy();
        if !name.starts_with(VARIABLE_PREFIX) {
            continue;
        }
        if let Some(key) = keys::all().find(|key| key.variable() == name) {
            // Invalid UTF-8 becomes replacement characters, which no value may contain.
            let value = value.to_string_lossy();
            // A link of Docker to a container `raybox-node` sets RAYBOX_NODE_NAME to a value with a
            // slash.
            if is_of_service(&name) && !key.set(config, &value) {
                services.push(name.into_owned());
                continue;
            }
            apply(config, key, &value, &name, || SettingSource::Environment)?;
        } else if is_of_service(&name) {
            services.push(name.escape_debug().to_string());
        } else if let Some(similar) = nearest(&name, keys::all().map(Key::variable)) {
            let (place, name) = (SettingSource::Environment, name.into_owned());
            return Err(ConfigError::UnknownName { place, name, similar: Some(similar) });
        } else {
            unknown.push(name.escape_debug().to_string());
        }
    }
    note(config, services, "not used: Kubernetes or Docker made it for a service of that name");
    note(config, unknown, "unknown and not used; server --help lists the settings");
    Ok(())
}

/// Adds one note for all of these variables together.
fn note(config: &mut Config, mut names: Vec<String>, what: &str) {
    names.sort();
    let Some(first) = names.first() else { return };
    let others = match names.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more like it)"),
    };
    config.notes.push(format!("environment variable {first}{others} is {what}"));
}

/// Whether Kubernetes sets this variable for a service (`RAYBOX_SERVICE_HOST`,
/// `RAYBOX_SERVICE_PORT_CHAT`), or Docker for a link (`RAYBOX_PORT_6000_TCP_ADDR`, `RAYBOX_NAME`,
/// `RAYBOX_ENV_…`). Of our settings, only `node_name` has such a name.
fn is_of_service(name: &str) -> bool {
    let rest = &name[VARIABLE_PREFIX.len() - 1..];
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.ends_with("_PORT")
        || rest.ends_with("_NAME")
        || rest.starts_with("_ENV_")
        || rest.split("_PORT_").skip(1).any(is_of_port)
}

/// Whether this may follow `_PORT_` in the name of such a variable: `6000_TCP`, optionally with
/// `_PROTO`, `_PORT` or `_ADDR` appended.
fn is_of_port(text: &str) -> bool {
    let (digits, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    !digits.is_empty() && ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| rest.starts_with(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str]) -> Result<Vec<String>, String> {
        let mut config = Config::with_defaults(([127, 0, 0, 1], 0).into());
        let env = names.iter().map(|name| ((*name).into(), "tcp://10.0.48.109:6000".into()));
        apply_all(&mut config, env).map(|()| config.notes).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_of_kubernetes_and_docker_are_noted_once() {
        let names = [
            "RAYBOX_SERVICE_HOST",
            "RAYBOX_SERVICE_PORT",
            "RAYBOX_SERVICE_PORT_CHAT",
            "RAYBOX_PORT",
            "RAYBOX_PORT_6000_TCP",
            "RAYBOX_PORT_6000_TCP_PROTO",
            "RAYBOX_PORT_6000_TCP_PORT",
            "RAYBOX_PORT_6000_TCP_ADDR",
            "RAYBOX_NAME",
            "RAYBOX_ENV_PATH",
            "RAYBOX_ADMIN_SERVICE_HOST",
            "RAYBOX_ADMIN_PORT",
            "RAYBOX_DATA_PORT_53_UDP_ADDR",
            "PATH",
        ];
        let what = "is not used: Kubernetes or Docker made it for a service of that name";
        let expected = format!("environment variable RAYBOX_ADMIN_PORT (and 12 more like it) {what}");
        assert_eq!(read(&names), Ok(vec![expected]));
        assert_eq!(read(&names[3..4]), Ok(vec![format!("environment variable RAYBOX_PORT {what}")]));
    }

    #[test]
    fn a_slip_is_refused_and_what_is_like_no_setting_is_noted() {
        let slip = |name: &str, meant: &str| {
            let text = format!("environment variable {name} is unknown, did you mean {meant}?");
            assert_eq!(read(&[name]), Err(text));
        };
        slip("RAYBOX_LOOP", "RAYBOX_LOOPS");
        slip("RAYBOX_IDLE_TIMEOUTT", "RAYBOX_IDLE_TIMEOUT");
        let text =
            "environment variable RAYBOX_VERSION_OF_IMAGE is unknown and not used; server --help lists the settings";
        assert_eq!(read(&["RAYBOX_VERSION_OF_IMAGE"]), Ok(vec![text.to_owned()]));
    }

    #[test]
    fn a_setting_with_the_name_of_a_service_is_recognised_by_its_value() {
        let taken: Vec<String> = keys::all().map(Key::variable).filter(|name| is_of_service(name)).collect();
        assert_eq!(taken, ["RAYBOX_NODE_NAME"]);
        for (value, name, notes) in [("chat-1", "chat-1", 0), ("/web/raybox-node", "", 1)] {
            let mut config = Config::with_defaults(([127, 0, 0, 1], 0).into());
            apply_all(&mut config, [("RAYBOX_NODE_NAME".into(), value.into())]).unwrap();
            assert_eq!((config.node_name.as_str(), config.notes.len()), (name, notes));
        }
    }
}
