//! The settings of the admin port and the log.

use crate::config::key::{Key, Kind};
use crate::config::values::{KIB, MIB};

pub(super) static KEYS: &[Key] = &[
    Key {
        name: "admin",
        default: "off",
        help: "HTTP port for a status page, /healthz, /readyz and /metrics, such as 9600, which is 127.0.0.1:9600",
        kind: Kind::Address(|config, address| config.admin = address),
    },
    Key {
        name: "admin_key",
        default: "none",
        help: "Key that opens the administration (/v1) of the admin port; none closes it",
        kind: Kind::AdminKey(|config, key| config.admin_key = key),
    },
    Key {
        name: "admin_hosts",
        default: "off",
        help: "Names by which administration and status page may be called, beside addresses and localhost",
        kind: Kind::Hosts(|config, hosts| config.admin_hosts = hosts),
    },
    Key {
        name: "admin_nodes",
        default: "off",
        help: "Admin ports of the nodes of the cluster, which the status page shows",
        kind: Kind::Addresses(|config, nodes| config.admin_nodes = nodes),
    },
    Key {
        name: "trace",
        default: "off",
        help: "Messages whose hops are remembered for server trace: all, or of one conversation in N",
        kind: Kind::Trace(|config, sampling| config.trace = sampling),
    },
    Key {
        name: "trace_size",
        default: "6m",
        help: "Memory for these hops, about 90 bytes each; it is taken while trace is on",
        kind: Kind::Size(4 * KIB, 1024 * MIB, |config, bytes| config.trace_bytes = bytes),
    },
    Key {
        name: "node_name",
        default: "auto",
        help: "Name of this server in its log and its metrics; auto is the name of the machine",
        kind: Kind::NodeName(|config, name| config.node_name = name),
    },
    Key {
        name: "log",
        default: "file",
        help: "Where the log goes",
        kind: Kind::LogTarget(|config, to| config.log.to = to),
    },
    Key {
        name: "log_format",
        default: "text",
        help: "How lines of the log look: for people, or one JSON object each",
        kind: Kind::LogFormat(|config, format| config.log.format = format),
    },
    Key {
        name: "log_dir",
        default: "auto",
        help: "Folder of the log files, one for each day; auto is logs in the folder of the data, but ../logs with MySQL",
        kind: Kind::LogDir(|config, dir| config.log.dir = dir),
    },
    Key {
        name: "log_days",
        default: "off",
        help: "Days after which a log file is deleted; off is never",
        kind: Kind::Limit(1, 36500, |config, days| config.log.days = days),
    },
    Key {
        name: "log_size",
        default: "auto",
        help: "Bytes of all log files, beyond which the oldest are deleted; auto is 1024m in the folder that auto chooses beside the data, else off; 0 is off",
        kind: Kind::LogBytes(MIB, 1024 * 1024 * MIB, |config, bytes| config.log.bytes_max = bytes),
    },
    Key {
        name: "log_level",
        default: "info",
        help: "Least important level that is logged, for parts of the program also as in info,net=debug; audit=off ends the audit trail, which is logged otherwise",
        kind: Kind::Levels(|config, levels| config.log.level = levels),
    },
];
