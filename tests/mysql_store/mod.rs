//! Stores that a test opens on a database without a server.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use raybox::config::{MysqlSettings, Secret, Tls};
use raybox::store::mysql::MysqlStore;
use testkit::Database;

/// Opens a store on `database`, with settings that `change` may change.
pub(crate) fn open_with(database: &Database, change: impl FnOnce(&mut MysqlSettings)) -> MysqlStore {
    let mut settings = settings(database);
    change(&mut settings);
    MysqlStore::open(&settings).unwrap_or_else(|error| panic!("{error}"))
}

/// The settings of a store on `database`. If the database is on another machine, `TEST_MYSQL_TLS`
/// (`on`, `verify`) and `TEST_MYSQL_CA` say how connections are encrypted.
fn settings(database: &Database) -> MysqlSettings {
    let tls = match env::var("TEST_MYSQL_TLS").as_deref() {
        Err(_) => Tls::Off,
        Ok("on") => Tls::On,
        Ok("verify") => Tls::Verify,
        Ok(other) => panic!("TEST_MYSQL_TLS must be on or verify, not {other:?}"),
    };
    let patience = Duration::from_secs(10);
    MysqlSettings {
        file: "mysql.cnf".into(),
        host: database.address().ip().to_string(),
        port: database.address().port(),
        username: database.user().to_owned(),
        password: Secret::new(database.password()),
        database: database.name().to_owned(),
        initial_size: 1,
        max_size: 32,
        idle_timeout: patience,
        wait_timeout: Duration::from_secs(2),
        connect_timeout: patience,
        read_timeout: patience,
        write_timeout: patience,
        tls,
        ca: env::var_os("TEST_MYSQL_CA").map(PathBuf::from),
    }
}
