//! The administration of the admin port, and `server admin`, tested from outside.

mod accounts;
mod announcements;
mod bots;
mod command;
mod described;
mod desk;
mod doors;
mod every_command;
mod groups;
mod node;
mod offline;
