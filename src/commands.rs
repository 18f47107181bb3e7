//! What the program does beside serving, each as `server COMMAND`.

pub mod health;
