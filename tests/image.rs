//! `Dockerfile` and `docker-compose.yml`, as text: the tests need no container engine. The build
//! gets every file that it copies, the image says what it is, and no container has privileges that
//! it does not need.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[test]
fn the_build_of_the_image_gets_the_files_that_it_copies() {
    let allowed = allowed();
    let copied = copied();
    assert!(copied.len() > 5, "{copied:?}");
    for source in &copied {
        assert!(Path::new(source).exists(), "Dockerfile copies {source}, which is not there");
        let is_allowed = allowed.iter().any(|allowed| Path::new(source).starts_with(allowed));
        assert!(is_allowed, ".dockerignore hides {source}, which Dockerfile copies");
    }
}

#[test]
fn the_build_of_the_image_gets_every_manifest() {
    let (allowed, copied) = (allowed(), copied());
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let (_, members) = manifest.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let manifests = members.split(',').map(|member| format!("{}/Cargo.toml", member.trim().trim_matches('"')));
    for file in manifests.chain(["Cargo.toml", "Cargo.lock", "build.rs"].map(str::to_owned)) {
        assert!(copied.contains(&file), "Dockerfile does not copy {file}");
        assert!(allowed.contains(&file), ".dockerignore hides {file}");
    }
}

/// The labels that registries and scanners of images show.
#[test]
fn the_image_says_what_it_is() {
    let dockerfile = fs::read_to_string("Dockerfile").unwrap();
    let label = |name: &str| {
        let (_, rest) = dockerfile.split_once(&format!("org.opencontainers.image.{name}=\"")).expect(name);
        rest.split_once('"').unwrap().0.to_owned()
    };
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert!(!label("title").is_empty() && !label("description").is_empty());
    let (_, run) = dockerfile.rsplit_once("\nFROM ").unwrap();
    assert!(run.lines().any(|line| line == "EXPOSE 6000 9600"), "the clients' port and the admin port");
    assert!(run.lines().any(|line| line == "USER raybox"));
}

/// A tag without the full version is another image after a while.
#[test]
fn every_image_has_an_exact_version() {
    let dockerfile = fs::read_to_string("Dockerfile").unwrap();
    let from = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    let from: Vec<&str> = from.map(|line| line.split(' ').next().unwrap()).collect();
    let services = services("docker-compose.yml");
    let named = services.values().filter_map(|lines| value(lines, "image"));
    let named: Vec<&str> = named.filter(|image| *image != "raybox").collect();
    assert_eq!((from.len(), named.len()), (2, 5), "{from:?} {named:?}");
    for image in from.into_iter().chain(named) {
        let (name, tag) = image.split_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        let numbers = tag.split(['.', '-', 'v']).filter(|part| part.parse::<u32>().is_ok()).count();
        // Debian's images are named after their day.
        let wanted = if name == "debian" { 1 } else { 3 };
        assert!(numbers >= wanted, "{image} is not an exact version");
    }
}

#[test]
fn no_container_has_privileges_that_it_does_not_need() {
    let services = services("docker-compose.yml");
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    let own = ["server1", "server2", "server3"];
    assert_eq!(names, ["grafana", "mysql", "nginx", "prometheus", "redis", own[0], own[1], own[2], "x-server"]);
    for (name, lines) in services.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
        assert_eq!(value(lines, "cap_drop"), Some("[ALL]"), "{name}");
        assert_eq!(value(lines, "security_opt"), Some(r#"["no-new-privileges:true"]"#), "{name}");
        // Grafana keeps a database in its own folder.
        assert_eq!(value(lines, "read_only"), (name != "grafana").then_some("true"), "{name}");
        let added = match name.as_str() {
            "mysql" => Some("[CHOWN, DAC_OVERRIDE, SETGID, SETUID]"),
            "redis" => Some("[SETGID, SETUID]"),
            "nginx" => Some("[KILL, SETGID, SETUID]"),
            _ => None,
        };
        assert_eq!(value(lines, "cap_add"), added, "{name}");
    }
    for name in own {
        assert!(services[name][0].contains("<<: *server"), "{name}");
    }
}

/// Only nginx is reached from other machines: on 8003, and on 8443 where it has a certificate.
#[test]
fn only_nginx_is_reached_from_other_machines() {
    for (name, lines) in services("docker-compose.yml") {
        let ports = value(&lines, "ports").unwrap_or("[]");
        let is_local = ports.split(',').all(|port| port == "[]" || port.contains("127.0.0.1:"));
        assert!(is_local || (name == "nginx" && ports == r#"["8003:8003"]"#), "{name} {ports}");
    }
    let tls = services("docker-compose.tls.yml");
    assert_eq!(tls.keys().collect::<Vec<_>>(), ["nginx"]);
    assert_eq!(value(&tls["nginx"], "ports"), Some(r#"["8443:8443"]"#));
    for mount in ["./conf/tls.d:/etc/nginx/tls.d:ro", "./tls:/etc/nginx/tls:ro"] {
        assert!(tls["nginx"].iter().any(|line| line.trim() == format!("- {mount}")), "{mount}");
    }
    assert!(fs::read_to_string(".gitignore").unwrap().lines().any(|line| line == "/tls"), "keys are never committed");
}

/// The lines of each service of this compose file, and of what the servers have in common.
fn services(file: &str) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(file).unwrap();
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut section, mut service) = (String::new(), String::new());
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let depth = line.len() - line.trim_start().len();
        let (key, rest) = line.trim().split_once(':').unwrap_or((line.trim(), ""));
        match depth {
            0 => section = key.to_owned(),
            2 if section == "services" => {
                service = key.to_owned();
                services.insert(service.clone(), vec![rest.to_owned()]);
            }
            _ if section == "services" => services.get_mut(&service).unwrap().push(line[2..].to_owned()),
            _ if section == "x-server" => services.entry(section.clone()).or_default().push(line.to_owned()),
            _ => {}
        }
    }
    services
}

/// The value of this key of a service, on one line.
fn value<'a>(lines: &'a [String], key: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix("  ")?.strip_prefix(key)?.strip_prefix(": "))
}

/// The files that `.dockerignore` lets through; everything else is hidden.
fn allowed() -> Vec<String> {
    let text = fs::read_to_string(".dockerignore").unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(lines[0], "*", "everything is hidden first");
    lines[1..].iter().map(|line| line.strip_prefix('!').expect("an exception").to_owned()).collect()
}

/// The sources of the `COPY` lines, except those that copy from another stage.
fn copied() -> Vec<String> {
    let text = fs::read_to_string("Dockerfile").unwrap();
    let lines = text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from="));
    let words = lines.map(|line| line.split_whitespace().filter(|word| !word.starts_with("--")).collect::<Vec<_>>());
    words.flat_map(|words| words[1..words.len() - 1].to_vec()).map(str::to_owned).collect()
}
