//! `mysql.cnf` and `redis.cnf`: the settings of the services that the nodes of a cluster share.
//!
//! The files have the reference server's format with additional keys, and serve both servers during
//! a rolling replacement. So an unknown key is ignored with a note in the log, as the reference
//! server ignores it. A key that looks like a typing error is refused, because the intended setting
//! would silently have its default.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster_settings::{
    DatabaseTls, MysqlSettings, RedisPlace, RedisSettings, Secret, SentinelSettings, SettingsFile,
};
use super::error::{ConfigError, SettingSource};
use super::file::settings_in;
use super::servers::{self, BadList, ServerAddress};
use super::settings::Config;
use super::spelling::nearest;
use super::{file, values};

/// Reads the files that `config` names.
pub(super) fn read(config: &mut Config, working_dir: &Path) -> Result<(), ConfigError> {
    if let Some((file, text)) = text_of(&config.mysql_file, "mysql.cnf", working_dir)? {
        let mysql = mysql(&file, &text, working_dir, &mut config.notes)?;
        let has_secret = !mysql.password.expose().is_empty();
        config.notes.extend(readable_secret(&file, working_dir).filter(|_| has_secret));
        config.mysql = Some(mysql);
    }
    if let Some((file, text)) = text_of(&config.redis_file, "redis.cnf", working_dir)? {
        let redis = redis(&file, &text, working_dir, &mut config.notes)?;
        if config.mysql.is_none() {
            return Err(ConfigError::RedisAlone(redis.file));
        }
        config.notes.extend(readable_secret(&file, working_dir).filter(|_| redis.password.is_some()));
        config.redis = Some(redis);
    }
    Ok(())
}

/// Reads `mysql.cnf`.
pub(super) fn mysql(
    file: &Path,
    text: &str,
    working_dir: &Path,
    notes: &mut Vec<String>,
) -> Result<MysqlSettings, ConfigError> {
    let values = Values::read(file, text, &MYSQL_KEYS, working_dir, notes)?;
    mysql_settings(&values, notes)
}

/// Reads `redis.cnf`.
pub(super) fn redis(
    file: &Path,
    text: &str,
    working_dir: &Path,
    notes: &mut Vec<String>,
) -> Result<RedisSettings, ConfigError> {
    let values = Values::read(file, text, &REDIS_KEYS, working_dir, notes)?;
    redis_settings(&values, notes)
}

/// The file and its text; `None` if the file is optional and does not exist.
fn text_of(file: &SettingsFile, usual: &str, working_dir: &Path) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let path = match file {
        SettingsFile::Named(path) => path.clone(),
        // Not `exists`, which would ignore a link whose target is missing.
        SettingsFile::Auto if working_dir.join(usual).symlink_metadata().is_err() => return Ok(None),
        SettingsFile::Auto => PathBuf::from(usual),
    };
    match file::read(&working_dir.join(&path)) {
        Ok(text) => Ok(Some((path, text))),
        Err(cause) => Err(ConfigError::UnreadableFile { path, cause }),
    }
}

/// A warning for the operator if every user of the machine can read this file, which contains a
/// password. Its group may read it.
fn readable_secret(file: &Path, working_dir: &Path) -> Option<String> {
    let mode = fs::metadata(working_dir.join(file)).ok()?.mode();
    let file = file.display();
    (mode & 0o004 != 0)
        .then(|| format!("{file} contains a password and every user of this machine can read it; chmod 640 {file}"))
}

fn mysql_settings(values: &Values<'_>, notes: &mut Vec<String>) -> Result<MysqlSettings, ConfigError> {
    check_charset(values, notes)?;
    let max_size = values.count("maxSize", 1024, 1, 100_000)?;
    Ok(MysqlSettings {
        file: values.file.to_owned(),
        servers: values.servers("3306")?,
        username: values.required("username", "chat")?.to_owned(),
        password: Secret::new(values.required("password", "...")?),
        database: values.not_empty("dbname", "chat")?.to_owned(),
        initial_size: values.count("initSize", 10.min(max_size), 1, max_size)?,
        max_size,
        idle_timeout: Duration::from_secs(values.count("maxIdleTime", 60, 1, DAY_SECONDS)?.into()),
        wait_timeout: values.millis("connectionTimeout", 100)?,
        connect_timeout: values.millis("connectTimeout", 2000)?,
        read_timeout: values.millis("readTimeout", 5000)?,
        write_timeout: values.millis("writeTimeout", 5000)?,
        tls: values.one_of("ssl", &TLS)?.unwrap_or(DatabaseTls::Off),
        ca: values.readable("ssl_ca")?,
    })
}

/// The connection uses utf8mb4, which can represent any text from a client. MySQL's utf8 is a
/// subset of it, which the reference server used.
fn check_charset(values: &Values<'_>, notes: &mut Vec<String>) -> Result<(), ConfigError> {
    let charset = values.required("charset", "utf8mb4")?;
    match charset.to_ascii_lowercase().as_str() {
        "utf8mb4" => Ok(()),
        "utf8" | "utf8mb3" => {
            notes.push(format!("{}: charset={charset} is taken for utf8mb4", values.file.display()));
            Ok(())
        }
        _ => Err(values.bad("charset", charset, "utf8mb4".to_owned())),
    }
}

fn redis_settings(values: &Values<'_>, notes: &mut Vec<String>) -> Result<RedisSettings, ConfigError> {
    let given = |key| values.optional(key).filter(|value| !value.is_empty());
    let db = values.count("db", 0, 0, i32::MAX.unsigned_abs())?.into();
    let cluster_name = given("cluster_name").map(str::to_owned);
    if let Some(name) = cluster_name.as_deref().filter(|name| !is_cluster_name(name)) {
        return Err(values.bad("cluster_name", name, "1 to 32 letters, digits, - and _".to_owned()));
    }
    let cpp_nodes = values.one_of("cpp_nodes", &AUTO)?.flatten();
    if given("cluster").is_some() {
        check_beside_cluster(values, db, cpp_nodes)?;
    }
    if db != 0 && cluster_name.is_none() && cpp_nodes.is_none() {
        notes.push(format!(
            "{}: db={db}, so this server ignores C++ servers that use the same Redis; if they belong to this \
                installation, set cpp_nodes=on",
            values.file.display()
        ));
    }
    Ok(RedisSettings {
        file: values.file.to_owned(),
        place: redis_place(values, notes)?,
        username: given("username").map(str::to_owned),
        password: given("password").map(Secret::new),
        db,
        cluster_name,
        cpp_nodes,
        tls: values.one_of("tls", &SWITCH)?.unwrap_or(false),
        tls_ca: values.readable("tls_ca")?,
        size: values.count("size", 2, 1, 10_000)?,
        idle_timeout: values.millis("connection_idle_time", 30_000)?,
        wait_timeout: values.millis("wait_timeout", 100)?,
    })
}

/// Refuses settings that a Redis Cluster cannot have.
fn check_beside_cluster(values: &Values<'_>, db: i64, cpp_nodes: Option<bool>) -> Result<(), ConfigError> {
    for key in ["sentinels", "master", "sentinel_password"] {
        if let Some(value) = values.optional(key).filter(|value| !value.is_empty()) {
            let value = if key == "sentinel_password" { "***" } else { value };
            return Err(values.bad(key, value, "no value beside cluster, or remove cluster".to_owned()));
        }
    }
    if db != 0 {
        let allowed = "0, because a Redis Cluster has no other database; use cluster_name to tell installations apart";
        return Err(values.bad("db", &db.to_string(), allowed.to_owned()));
    }
    if cpp_nodes == Some(true) {
        let allowed = "auto or off, because C++ servers cannot work with this one through a Redis Cluster";
        return Err(values.bad("cpp_nodes", "on", allowed.to_owned()));
    }
    Ok(())
}

/// The address of Redis, of the sentinels that know it, or of servers of a Redis Cluster.
fn redis_place(values: &Values<'_>, notes: &mut Vec<String>) -> Result<RedisPlace, ConfigError> {
    let given = |key| values.optional(key).filter(|value| !value.is_empty());
    let note_unused = |notes: &mut Vec<String>, because: &str| {
        if values.optional("ip").is_some() || values.optional("port").is_some() {
            notes.push(format!("{}: ip and port are not used, because {because}", values.file.display()));
        }
    };
    if let Some(text) = given("cluster") {
        let servers =
            servers::list(text, REDIS_PORT).map_err(|BadList(part, allowed)| values.bad("cluster", part, allowed))?;
        note_unused(notes, "a Redis Cluster is named");
        return Ok(RedisPlace::Cluster(servers));
    }
    if given("sentinels").is_none() && given("master").is_none() {
        if given("sentinel_password").is_some() {
            values.required("sentinels", SENTINELS_EXAMPLE)?;
        }
        return Ok(RedisPlace::Server(ServerAddress { host: values.host()?, port: values.port("6379")? }));
    }
    let text = values.not_empty("sentinels", SENTINELS_EXAMPLE)?;
    let sentinels =
        servers::list(text, SENTINEL_PORT).map_err(|BadList(part, allowed)| values.bad("sentinels", part, allowed))?;
    let master = values.not_empty("master", "mymaster")?.to_owned();
    if master.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(values.bad("master", &master, "a name without spaces, as in sentinel.conf".to_owned()));
    }
    note_unused(notes, "sentinels are named");
    Ok(RedisPlace::Sentinels(SentinelSettings {
        sentinels,
        master,
        password: given("sentinel_password").map(Secret::new),
    }))
}

/// Whether this may be the name of a cluster, which becomes part of the names of channels and keys.
fn is_cluster_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.len() <= CLUSTER_NAME_BYTES_MAX && name.bytes().all(is_allowed)
}

/// The settings of one of the files.
struct Values<'a> {
    file: &'a Path,
    working_dir: &'a Path,
    /// The key, line number and value of each setting.
    settings: Vec<(&'static str, usize, &'a str)>,
}

impl<'a> Values<'a> {
    fn read(
        file: &'a Path,
        text: &'a str,
        keys: &[&'static str],
        working_dir: &'a Path,
        notes: &mut Vec<String>,
    ) -> Result<Values<'a>, ConfigError> {
        let mut settings = Vec::new();
        for setting in settings_in(file, text)? {
            let place = SettingSource::Line(file.to_owned(), setting.line);
            match keys.iter().find(|key| **key == setting.name) {
                Some(key) => settings.push((*key, setting.line, setting.value)),
                None => match nearest(setting.name, keys.iter().map(|key| (*key).to_owned())) {
                    None => notes.push(format!("{place} {} is unknown and not used", setting.name.escape_debug())),
                    similar => {
                        return Err(ConfigError::UnknownName { place, name: setting.name.to_owned(), similar });
                    }
                },
            }
        }
        Ok(Values { file, working_dir, settings })
    }

    fn optional(&self, key: &str) -> Option<&'a str> {
        self.settings.iter().find(|(name, ..)| *name == key).map(|&(_, _, value)| value)
    }

    fn required(&self, key: &'static str, example: &'static str) -> Result<&'a str, ConfigError> {
        let missing = || ConfigError::MissingKey { file: self.file.to_owned(), name: key, example };
        self.optional(key).ok_or_else(missing)
    }

    fn not_empty(&self, key: &'static str, example: &'static str) -> Result<&'a str, ConfigError> {
        match self.required(key, example)? {
            "" => Err(self.bad(key, "", format!("a value such as {example}"))),
            value => Ok(value),
        }
    }

    fn host(&self) -> Result<String, ConfigError> {
        let host = self.not_empty("ip", "127.0.0.1")?;
        if host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(self.bad("ip", host, "an address such as 127.0.0.1 or a host name".to_owned()));
        }
        Ok(host.to_owned())
    }

    fn servers(&self, example_port: &'static str) -> Result<Vec<ServerAddress>, ConfigError> {
        let hosts = self.not_empty("ip", "127.0.0.1")?;
        let port = self.port(example_port)?;
        servers::list(hosts, port).map_err(|BadList(part, allowed)| self.bad("ip", part, allowed))
    }

    fn port(&self, example: &'static str) -> Result<u16, ConfigError> {
        let text = self.required("port", example)?;
        let port = values::count(text, 1, u16::MAX.into()).and_then(|port| u16::try_from(port).ok());
        port.ok_or_else(|| self.bad("port", text, "1 to 65535".to_owned()))
    }

    fn count(&self, key: &'static str, default: u32, min: u32, max: u32) -> Result<u32, ConfigError> {
        let Some(text) = self.optional(key) else { return Ok(default) };
        let allowed = || match key {
            "initSize" => format!("{min} to maxSize, which is {max}"),
            _ => format!("{min} to {max}"),
        };
        values::count(text, min, max).ok_or_else(|| self.bad(key, text, allowed()))
    }

    fn millis(&self, key: &'static str, default: u32) -> Result<Duration, ConfigError> {
        self.count(key, default, 1, DAY_SECONDS * 1000).map(|millis| Duration::from_millis(millis.into()))
    }

    fn one_of<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.optional(key) else { return Ok(None) };
        values::one_of(choices, text).map(Some).ok_or_else(|| self.bad(key, text, values::names(choices)))
    }

    /// A file that must be readable now, because an error is clearer here than later from TLS.
    fn readable(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(text) = self.optional(key) else { return Ok(None) };
        let path = values::path(text).ok_or_else(|| self.bad(key, text, "a path".to_owned()))?;
        let path = self.working_dir.join(path);
        match File::open(&path) {
            Ok(_) => Ok(Some(path)),
            Err(cause) => Err(ConfigError::UnreadableNamed { place: self.place(key), name: key, path, cause }),
        }
    }

    fn bad(&self, key: &'static str, value: &str, allowed: String) -> ConfigError {
        // A password is never refused, so no secret is shown here.
        ConfigError::BadValue { place: self.place(key), name: key.to_owned(), value: value.to_owned(), allowed }
    }

    fn place(&self, key: &str) -> SettingSource {
        let line = self.settings.iter().find(|(name, ..)| *name == key).map_or(0, |&(_, line, _)| line);
        SettingSource::Line(self.file.to_owned(), line)
    }
}

const MYSQL_KEYS: [&str; 15] = [
    "ip",
    "port",
    "username",
    "password",
    "dbname",
    "charset",
    "initSize",
    "maxSize",
    "maxIdleTime",
    "connectionTimeout",
    "connectTimeout",
    "readTimeout",
    "writeTimeout",
    "ssl",
    "ssl_ca",
];

const REDIS_KEYS: [&str; 16] = [
    "ip",
    "port",
    "sentinels",
    "master",
    "sentinel_password",
    "cluster",
    "username",
    "password",
    "db",
    "cluster_name",
    "cpp_nodes",
    "tls",
    "tls_ca",
    "size",
    "connection_idle_time",
    "wait_timeout",
];

const TLS: [(&str, DatabaseTls); 3] =
    [("off", DatabaseTls::Off), ("on", DatabaseTls::On), ("verify", DatabaseTls::Verify)];

const AUTO: [(&str, Option<bool>); 3] = [("auto", None), ("off", Some(false)), ("on", Some(true))];

const SWITCH: [(&str, bool); 2] = [("off", false), ("on", true)];

const SENTINEL_PORT: u16 = 26379;
const REDIS_PORT: u16 = 6379;

const SENTINELS_EXAMPLE: &str = "10.0.0.1,10.0.0.2,10.0.0.3";

const CLUSTER_NAME_BYTES_MAX: usize = 32;

const DAY_SECONDS: u32 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use crate::base::folder::Folder;
    use crate::config::Invocation;

    impl Folder {
        fn load(&self, args: &str, env: &[(&str, &str)]) -> Result<Config, String> {
            let args = ["server", "::1", "1"].into_iter().chain(args.split_whitespace()).map(Into::into);
            let env = env.iter().map(|&(name, value)| (name.into(), value.into()));
            match Config::load(args, env, &self.0) {
                Ok(Invocation::Run(config)) => Ok(*config),
                Ok(Invocation::Print(text)) => panic!("expected settings: {text}"),
                Err(error) => Err(error.to_string()),
            }
        }
    }

    const MYSQL: &str = "# old\nip = 127.0.0.1\nport=3306\nusername=root\npassword=12#34=56 # secret\ndbname=chat\n\
                         charset=utf8mb4\n";
    const REDIS: &str = "ip=redis\nport=6379\n";

    #[test]
    fn the_reference_servers_files_are_read() {
        let more = "initSize=3\nmaxSize=7\nmaxIdleTime=5\nconnectionTimeout=250\n";
        let redis = "size=3\nconnection_idle_time=1000\nwait_timeout=50\n";
        let (mysql, redis) = (format!("{MYSQL}{more}"), format!("{REDIS}{redis}"));
        let folder = Folder::with("reference", &[("mysql.cnf", &mysql), ("redis.cnf", &redis)]);
        let config = folder.load("", &[]).unwrap();
        let mysql = config.mysql.unwrap();
        assert_eq!(
            (mysql.file.to_str(), &*mysql.servers),
            (Some("mysql.cnf"), &[ServerAddress::new("127.0.0.1", 3306)][..])
        );
        assert_eq!((mysql.username.as_str(), mysql.password.expose()), ("root", "12#34=56"));
        assert_eq!((mysql.database.as_str(), mysql.initial_size, mysql.max_size), ("chat", 3, 7));
        assert_eq!((mysql.idle_timeout, mysql.wait_timeout), (Duration::from_secs(5), Duration::from_millis(250)));
        let redis = config.redis.unwrap();
        assert_eq!((redis.place.to_string().as_str(), redis.size), ("redis:6379", 3));
        assert_eq!((redis.idle_timeout, redis.wait_timeout), (Duration::from_secs(1), Duration::from_millis(50)));
        assert_eq!(config.notes, [""; 0]);
    }

    #[test]
    fn keys_that_are_not_set_have_their_defaults() {
        let folder = Folder::with("defaults", &[("mysql.cnf", MYSQL), ("redis.cnf", REDIS)]);
        let config = folder.load("", &[]).unwrap();
        // The log is at the C++ server's place, perhaps beside its files.
        assert_eq!((config.log_dir().to_str(), config.log_bytes_max()), (Some("../logs"), None));
        let mysql = config.mysql.unwrap();
        assert_eq!((mysql.initial_size, mysql.max_size, mysql.tls, mysql.ca), (10, 1024, DatabaseTls::Off, None));
        assert_eq!((mysql.idle_timeout, mysql.wait_timeout), (Duration::from_secs(60), Duration::from_millis(100)));
        let five = Duration::from_secs(5);
        assert_eq!((mysql.read_timeout, mysql.write_timeout, mysql.connect_timeout.as_millis()), (five, five, 2000));
        let redis = config.redis.unwrap();
        assert_eq!((redis.username, redis.password, redis.db, redis.tls, redis.tls_ca), (None, None, 0, false, None));
        assert_eq!((redis.size, redis.idle_timeout.as_millis(), redis.wait_timeout.as_millis()), (2, 30_000, 100));
        // The default of ten must not make a file invalid that allows fewer.
        let folder = Folder::with("few", &[("mysql.cnf", &format!("{MYSQL}maxSize=4"))]);
        assert_eq!(folder.load("", &[]).unwrap().mysql.unwrap().initial_size, 4);
    }

    #[test]
    fn a_database_may_have_several_servers() {
        let load = |ip: &str| {
            let text = MYSQL.replace("ip = 127.0.0.1", &format!("ip={ip}"));
            Folder::with("several", &[("mysql.cnf", &text)]).load("", &[])
        };
        let servers = load("10.0.0.1,db2, db3:3307").unwrap().mysql.unwrap().servers;
        assert_eq!(servers::in_words(&servers), "10.0.0.1:3306,db2:3306,db3:3307");
        for (ip, expected) in [
            ("10.0.0.1,,db2", "\"10.0.0.1,,db2\" is not allowed, use addresses with one comma between two of them"),
            ("db1,db1", "use each server once: db1:3306 is there twice"),
            ("db1,db/2", "\"db/2\" is not allowed, use an address such as 127.0.0.1, a host name"),
        ] {
            let text = load(ip).unwrap_err();
            assert!(text.starts_with("mysql.cnf, line 2: key ip: ") && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_redis_cluster_has_one_database_and_neither_sentinels_nor_cpp_servers() {
        let load = |redis: &str| Folder::with("cluster", &[("mysql.cnf", MYSQL), ("redis.cnf", redis)]).load("", &[]);
        let config = load("cluster=10.0.0.1,r2:1\ncpp_nodes=off\ncluster_name=blue\nsentinels=\n").unwrap();
        let redis = config.redis.unwrap();
        assert_eq!(redis.place.to_string(), "the Redis Cluster 10.0.0.1:6379,r2:1");
        assert!(config.notes.is_empty() && redis.cluster_name.as_deref() == Some("blue"));
        let both = load(&format!("{REDIS}cluster=a")).unwrap();
        assert_eq!(both.notes, ["redis.cnf: ip and port are not used, because a Redis Cluster is named"]);
        assert_eq!(load(&format!("{REDIS}cluster=\n")).unwrap().redis.unwrap().place.to_string(), "redis:6379");
        for (redis, expected) in [
            ("cluster=a,,b", "redis.cnf, line 1: key cluster: \"a,,b\" is not allowed, use addresses with one comma"),
            (
                "cluster=a\nsentinels=b\nmaster=c",
                "redis.cnf, line 2: key sentinels: \"b\" is not allowed, use no value",
            ),
            ("cluster=a\nmaster=c", "redis.cnf, line 2: key master: \"c\" is not allowed, use no value beside cluster"),
            ("cluster=a\nsentinel_password=c", "redis.cnf, line 2: key sentinel_password: \"***\" is not allowed, use"),
            ("db=1\ncluster=a", "redis.cnf, line 1: key db: \"1\" is not allowed, use 0, because a Redis Cluster"),
            ("cluster=a\ncpp_nodes=on", "redis.cnf, line 2: key cpp_nodes: \"on\" is not allowed, use auto or off"),
        ] {
            let text = load(redis).unwrap_err();
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn sentinels_need_the_name_of_the_master() {
        let load = |redis: &str| Folder::with("sentinels", &[("mysql.cnf", MYSQL), ("redis.cnf", redis)]).load("", &[]);
        let config = load("sentinels=10.0.0.1,s2:1\nmaster=chat\nsentinel_password=x").unwrap();
        let place = config.redis.unwrap().place;
        assert_eq!(place.to_string(), "chat of the sentinels 10.0.0.1:26379,s2:1");
        assert!(config.notes.is_empty() && !format!("{place:?}").contains("\"x\""), "{place:?}");
        let both = load(&format!("{REDIS}sentinels=a\nmaster=chat")).unwrap();
        assert_eq!(both.notes, ["redis.cnf: ip and port are not used, because sentinels are named"]);
        assert_eq!(
            load(&format!("{REDIS}sentinels=\nmaster=\n")).unwrap().redis.unwrap().place.to_string(),
            "redis:6379"
        );
        for (redis, expected) in [
            ("sentinels=a", "redis.cnf lacks the key master; add a line such as master=mymaster"),
            ("master=chat", "redis.cnf lacks the key sentinels; add a line such as sentinels=10.0.0.1,"),
            ("ip=a\nport=1\nsentinel_password=x", "redis.cnf lacks the key sentinels; "),
            ("sentinels=a,,b\nmaster=chat", "redis.cnf, line 1: key sentinels: \"a,,b\" is not allowed, use addresses"),
            (
                "sentinels=a,a\nmaster=chat",
                "redis.cnf, line 1: key sentinels: \"a,a\" is not allowed, use each server once",
            ),
            (
                "sentinels=a\nmaster=my master",
                "redis.cnf, line 2: key master: \"my master\" is not allowed, use a name",
            ),
        ] {
            let text = load(redis).unwrap_err();
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let redis = format!("{REDIS}password=123456");
        let folder = Folder::with("secret", &[("mysql.cnf", MYSQL), ("redis.cnf", &redis)]);
        let shown = format!("{:?}", folder.load("", &[]).unwrap());
        assert!(shown.contains("***") && !shown.contains("12#34") && !shown.contains("123456"), "{shown}");
    }

    #[test]
    fn a_named_file_goes_before_the_usual_one_and_must_exist() {
        let other = MYSQL.replace("chat", "other");
        let folder = Folder::with("named", &[("mysql.cnf", MYSQL), ("my.cnf", &other), ("server.cnf", "mysql=my.cnf")]);
        assert_eq!(folder.load("", &[]).unwrap().mysql.unwrap().database, "other");
        let by_variable = folder.load("", &[("RAYBOX_MYSQL", "mysql.cnf")]).unwrap();
        assert_eq!(by_variable.mysql.unwrap().database, "chat");
        assert_eq!(folder.load("--mysql auto", &[]).unwrap().mysql.unwrap().database, "chat");
        let text = folder.load("--mysql none.cnf", &[]).unwrap_err();
        assert!(text.starts_with("cannot read the settings file none.cnf: "), "{text}");
        let folder = Folder::with("neither", &[]);
        let config = folder.load("", &[]).unwrap();
        assert!(config.mysql.is_none() && config.redis.is_none());
    }

    #[test]
    fn a_command_works_on_what_a_server_would_unless_it_names_another_file() {
        let other = MYSQL.replace("chat", "other");
        let files = [("mysql.cnf", MYSQL), ("my.cnf", &other), ("r.cnf", REDIS), ("server.cnf", "mysql=my.cnf")];
        let folder = Folder::with("command", &files);
        let load = |mysql, redis, env: &[(&str, &str)]| {
            let env = env.iter().map(|&(name, value)| (name.into(), value.into()));
            Config::for_command(mysql, redis, env, &folder.0).map_err(|error| error.to_string())
        };
        let database = |config: Result<Config, String>| config.unwrap().mysql.unwrap().database;
        assert_eq!(database(load(None, None, &[])), "other");
        assert_eq!(database(load(None, None, &[("RAYBOX_MYSQL", "mysql.cnf")])), "chat");
        assert_eq!(database(load(Some("mysql.cnf"), None, &[("RAYBOX_MYSQL", "none")])), "chat");
        assert_eq!(load(None, Some("r.cnf"), &[]).unwrap().redis.unwrap().place.to_string(), "redis:6379");
        let text = load(Some(""), None, &[]).unwrap_err();
        assert_eq!(text, "option --mysql: \"\" is not allowed, use auto or a path");
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (lines, expected) in [
            ("maxsize=5", "mysql.cnf, line 8: key maxsize is unknown, did you mean maxSize?"),
            ("maxSize=0", "mysql.cnf, line 8: key maxSize: \"0\" is not allowed, use 1 to 100000"),
            (
                "initSize=2000",
                "mysql.cnf, line 8: key initSize: \"2000\" is not allowed, use 1 to maxSize, which is 1024",
            ),
            ("readTimeout=5s", "mysql.cnf, line 8: key readTimeout: \"5s\" is not allowed, use 1 to 86400000"),
            ("ssl=yes", "mysql.cnf, line 8: key ssl: \"yes\" is not allowed, use off, on or verify"),
            ("port=1", "mysql.cnf, line 8: key port is already in line 3, remove one of them"),
            ("ssl_ca=", "mysql.cnf, line 8: key ssl_ca: \"\" is not allowed, use a path"),
        ] {
            let folder = Folder::with("wrong", &[("mysql.cnf", &format!("{MYSQL}{lines}"))]);
            assert_eq!(folder.load("", &[]).unwrap_err(), expected);
        }
        for (from, to, expected) in [
            ("utf8mb4", "latin1", "mysql.cnf, line 7: key charset: \"latin1\" is not allowed, use utf8mb4"),
            ("3306", "65536", "mysql.cnf, line 3: key port: \"65536\" is not allowed, use 1 to 65535"),
            ("dbname=chat", "dbname=", "mysql.cnf, line 6: key dbname: \"\" is not allowed, use a value such as chat"),
        ] {
            let folder = Folder::with("bad", &[("mysql.cnf", &MYSQL.replace(from, to))]);
            assert_eq!(folder.load("", &[]).unwrap_err(), expected);
        }
    }

    #[test]
    fn every_needed_key_is_missed() {
        for key in ["ip", "port", "username", "password", "dbname", "charset"] {
            let without: Vec<&str> = MYSQL.lines().filter(|line| !line.starts_with(key)).collect();
            let folder = Folder::with("missing", &[("mysql.cnf", &without.join("\n"))]);
            let text = folder.load("", &[]).unwrap_err();
            assert!(text.starts_with(&format!("mysql.cnf lacks the key {key}; add a line such as {key}=")), "{text}");
        }
        for key in ["ip", "port"] {
            let without: Vec<&str> = REDIS.lines().filter(|line| !line.starts_with(key)).collect();
            let folder = Folder::with("missing-2", &[("mysql.cnf", MYSQL), ("redis.cnf", &without.join("\n"))]);
            let text = folder.load("", &[]).unwrap_err();
            assert!(text.starts_with(&format!("redis.cnf lacks the key {key}; ")), "{text}");
        }
    }

    #[test]
    fn a_file_of_certificates_must_be_readable() {
        let folder = Folder::with("ca", &[("mysql.cnf", &format!("{MYSQL}ssl=verify\nssl_ca=ca.pem"))]);
        let text = folder.load("", &[]).unwrap_err();
        assert!(text.starts_with("mysql.cnf, line 9: key ssl_ca: cannot read "), "{text}");
        fs::write(folder.0.join("ca.pem"), "").unwrap();
        let mysql = folder.load("", &[]).unwrap().mysql.unwrap();
        assert_eq!((mysql.tls, mysql.ca), (DatabaseTls::Verify, Some(folder.0.join("ca.pem"))));
    }

    #[test]
    fn keys_of_another_server_are_noted() {
        let text = MYSQL.replace("utf8mb4", "utf8") + "autoReconnect=1\n";
        let folder = Folder::with("notes", &[("mysql.cnf", &text)]);
        assert_eq!(
            folder.load("", &[]).unwrap().notes,
            [
                "mysql.cnf, line 8: key autoReconnect is unknown and not used",
                "mysql.cnf: charset=utf8 is taken for utf8mb4",
            ]
        );
    }

    #[test]
    fn a_password_that_everybody_can_read_is_noted() {
        let redis = format!("{REDIS}password=secret");
        let folder = Folder::with("mode", &[("mysql.cnf", MYSQL), ("redis.cnf", &redis)]);
        let notes = |file: &str, mode| {
            fs::set_permissions(folder.0.join(file), Permissions::from_mode(mode)).unwrap();
            folder.load("", &[]).unwrap().notes
        };
        assert_eq!(notes("mysql.cnf", 0o600), [""; 0]);
        assert_eq!(notes("redis.cnf", 0o640), [""; 0]);
        let of = |file| {
            format!(
                "{file} contains a password and every user of this machine can read it; chmod \
            640 {file}"
            )
        };
        assert_eq!(notes("mysql.cnf", 0o644), [of("mysql.cnf")]);
        assert_eq!(notes("redis.cnf", 0o604), [of("mysql.cnf"), of("redis.cnf")]);
        fs::write(folder.0.join("redis.cnf"), REDIS).unwrap();
        fs::write(folder.0.join("mysql.cnf"), MYSQL.replace("12#34=56", "")).unwrap();
        assert_eq!(folder.load("", &[]).unwrap().notes, [""; 0], "there is nothing to hide");
    }

    #[test]
    fn the_sample_files_name_every_key_with_its_default() {
        let (mysql, redis) = (include_str!("../../conf/mysql.cnf"), include_str!("../../conf/redis.cnf"));
        for (sample, keys) in [(mysql, &MYSQL_KEYS[..]), (redis, &REDIS_KEYS[..])] {
            // A commented setting is "#key=value", a sentence is "# Text".
            let settings = sample.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
            let settings = settings.filter(|line| !line.is_empty() && !line.starts_with(' '));
            let mut names: Vec<&str> = settings.map(|line| line.split_once('=').expect("a setting").0).collect();
            let mut expected = keys.to_vec();
            names.sort_unstable();
            expected.sort_unstable();
            assert_eq!(names, expected);
        }
        let shown = |mysql: &str, redis: &str| {
            let folder = Folder::with("samples", &[("mysql.cnf", mysql), ("redis.cnf", redis)]);
            format!("{:?}", folder.load("", &[]).unwrap())
        };
        let in_force = |sample: &str| {
            let is_file = |line: &&str| line.contains("_ca=");
            sample.lines().filter(|line| !is_file(line)).map(uncommented).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(shown(mysql, redis), shown(&in_force(mysql), &in_force(redis)));
    }

    fn uncommented(line: &str) -> &str {
        line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)
    }

    #[test]
    fn an_installation_may_have_a_name_and_its_own_neighbours() {
        let load = |added: &str| {
            let redis = format!("ip=127.0.0.1\nport=6379\n{added}");
            Folder::with("name", &[("mysql.cnf", MYSQL), ("redis.cnf", &redis)]).load("", &[])
        };
        let of = |added: &str| {
            let config = load(added).unwrap();
            let redis = config.redis.unwrap();
            (
                redis.cluster_name,
                redis.cpp_nodes,
                config.notes.iter().filter(|note| note.contains("cpp_nodes=on")).count(),
            )
        };
        assert_eq!(of(""), (None, None, 0));
        assert_eq!(of("cluster_name=\ncpp_nodes=auto\ndb=2\n"), (None, None, 1), "a file of the C++ server may say db");
        assert_eq!(of("cluster_name=blue-1\ndb=2\n"), (Some("blue-1".to_owned()), None, 0));
        assert_eq!(of("cpp_nodes=on\ndb=2\n"), (None, Some(true), 0));
        for name in ["a b", "a:b", "a*", &"x".repeat(33)] {
            let refusal = load(&format!("cluster_name={name}\n")).unwrap_err();
            assert!(refusal.contains("cluster_name") && refusal.contains("1 to 32 letters"), "{refusal}");
        }
    }

    #[test]
    fn redis_without_a_shared_database_is_refused() {
        let folder = Folder::with("alone", &[("redis.cnf", REDIS)]);
        let text = folder.load("", &[]).unwrap_err();
        assert!(text.starts_with("redis.cnf makes this server a node of a cluster, but "), "{text}");
        assert!(text.contains("no mysql.cnf") && !text.contains('\n'), "{text}");
    }
}
