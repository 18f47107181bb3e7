//! The administration behaves as its OpenAPI description says. schemathesis makes valid and invalid
//! requests from the description and checks the answers against it.

use std::env;
use std::process::Command;

use testkit::{LONG_PATIENCE, output_within, user};

use crate::desk::{Desk, KEY, administered};

#[test]
fn the_administration_is_as_it_is_described() {
    let program = env::var("TEST_SCHEMATHESIS").unwrap_or_else(|_| {
        panic!(
            "this test needs schemathesis and finds none in TEST_SCHEMATHESIS: run ./test.sh, with the same arguments"
        )
    });
    let examples = env::var("API_EXAMPLES").unwrap_or_else(|_| "15".to_owned());
    let seed = env::var("API_SEED").unwrap_or_else(|_| "1".to_owned());
    let server = administered().start();
    let (mut ann, a) = user(&server, "ann");
    ann.create_group(a, "team");
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(format!("http://{}/v1/openapi.json", Desk::of(&server).0))
        .args(["--header", &format!("Authorization: Bearer {KEY}")])
        .args(["--max-examples", &examples, "--seed", &seed, "--no-color"])
        .current_dir(server.folder());
    let ended = output_within(5 * LONG_PATIENCE, &mut command).expect("schemathesis starts");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}\n{}", String::from_utf8_lossy(&ended.stderr));
    assert!(server.is_alive());
}
