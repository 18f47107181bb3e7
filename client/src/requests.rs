//! Friends, groups, devices and the account: requests by name.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, Options};
use crate::conv::Conv;
use crate::dial::{Dialled, dial};
use crate::error::{Error, Result};
use crate::frame::Refusal;
use crate::server::Servers;

/// A user or a group by id and name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// The id of the user or group.
    pub id: i64,
    /// The name of the user or group.
    pub name: String,
}

/// A member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The user's id.
    pub id: i64,
    /// The user's name.
    pub name: String,
    /// Whether the user may change the group.
    pub is_creator: bool,
}

/// Users and groups: the result of a search, and the lists of friends and groups.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Found {
    /// Users.
    pub users: Vec<Named>,
    /// Groups.
    pub groups: Vec<Named>,
}

/// A device of the account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// The name of the device.
    pub device: String,
    /// The time at which the device was last seen, in milliseconds since 1970.
    pub seen: i64,
    /// Whether the device is connected.
    pub online: bool,
}

/// The result of a request to make friends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Friendship {
    /// Both are friends now.
    Made,
    /// The other user was asked.
    Asked,
}

/// The longest reply to a registration.
const REPLY_MAX: u64 = 64 * 1024;

/// The time within which an address must answer a registration: one that is followed by others, and
/// the last one.
const REPLY_WITHIN: Duration = Duration::from_secs(15);
const LAST_REPLY_WITHIN: Duration = Duration::from_secs(20);

/// Proves that a request comes from the owner of the account. A text is a password.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// The password.
    Password(&'a str),
    /// A fresh JSON web token of the identity provider, for an account that such a token has made.
    Jwt(&'a str),
}

/// Creates an account, and returns its id. Needs no client, because it opens a connection of its
/// own.
///
/// # Errors
/// [`Error::Refused`] with the server's reason, for example that the name is taken.
pub fn register(server: &str, name: &str, password: &str) -> Result<i64> {
    Options::new(server).register(name, password)
}

impl Options {
    /// [`register`] with the server and the certificates of these options. If an address does not
    /// answer, tries the next one.
    ///
    /// # Errors
    /// As for [`register`], and [`Error::Tls`] if these options do not permit TLS.
    pub fn register(&self, name: &str, password: &str) -> Result<i64> {
        let request = format!("{}\n", json!({"msgType": 2, "name": name, "password": password}));
        let (mut is_answer_lost, mut last) = (false, io::Error::from(io::ErrorKind::AddrNotAvailable));
        let servers = Servers::of(&self.server, self.ca.as_deref())?;
        for (at, server) in (1..).zip(servers.all()) {
            let connection = match dial(server) {
                Ok(connection) => connection,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            let within = if at < servers.all().len() { REPLY_WITHIN } else { LAST_REPLY_WITHIN };
            match reply_to(&request, connection, within) {
                Ok(reply) => return registered(&reply, is_answer_lost),
                Err(error) => (is_answer_lost, last) = (true, error),
            }
        }
        Err(last.into())
    }
}

/// Sends a request, and reads one line.
fn reply_to(request: &str, mut connection: Dialled, within: Duration) -> io::Result<String> {
    connection.set_patience(within)?;
    connection.write_all(request.as_bytes())?;
    connection.flush()?;
    let mut reply = BufReader::new(connection.take(REPLY_MAX));
    let mut line = String::new();
    reply.read_line(&mut line)?;
    let has_end = line.ends_with('\n') || reply.get_ref().limit() == 0;
    // The error of a server that has read nothing yet has no newline. Any other reply without one
    // is the beginning of a reply whose rest is lost with the connection.
    match has_end || serde_json::from_str::<Value>(&line).is_ok() {
        true => Ok(line),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The id of the new account. `is_answer_lost`: another server had the request before, and may have
/// made the account without answering.
fn registered(reply: &str, is_answer_lost: bool) -> Result<i64> {
    let reply: Value = serde_json::from_str(reply).map_err(|_| Error::Misunderstood)?;
    let Some(Refusal { errno, errmsg, retry_after }) = Refusal::of(&reply) else {
        return reply["USERID"].as_i64().ok_or(Error::Misunderstood);
    };
    // The server has one error for a name that is taken, empty or too long.
    let message = match errno {
        500 if is_answer_lost => {
            "another address did not answer, but may have made this account: try to log in, or try another name"
                .to_owned()
        }
        500 => "the name is taken, or name or password is too long: try another name".to_owned(),
        _ => errmsg,
    };
    Err(Error::Refused { errno, message, retry_after })
}

/// # Requests
///
/// Each waits for the server's answer. Their errors are those of [`Client::ask`].
impl Client {
    /// The user's friends and groups.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn friends(&self) -> Result<Found> {
        let reply = self.ask(json!({"msgType": 8}))?;
        self.remember(found(&reply["friends"]))
    }

    /// Searches users by id or by their whole name, and groups by id or by a part of their name.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn search(&self, keyword: &str) -> Result<Found> {
        let reply = self.ask(json!({"msgType": 15, "keyword": keyword, "byName": true}))?;
        self.remember(found(&reply["results"]))
    }

    /// The conversation of this name, or of a text such as `u9` or `g3`: a conversation of the
    /// store, a friend, or a user or a group that the server knows. `None` if there is none.
    ///
    /// # Errors
    /// As for [`Client::ask`], if the store does not know the name.
    pub fn find(&self, name: &str) -> Result<Option<Conv>> {
        if let Ok(conv) = name.parse() {
            return Ok(Some(conv));
        }
        let is_it = |known: Option<&str>| known.is_some_and(|known| known.to_lowercase() == name.to_lowercase());
        let known = self.conversations()?.into_iter().find(|known| is_it(known.name.as_deref()));
        if let Some(known) = known {
            return Ok(Some(known.conv));
        }
        if self.user()?.is_some_and(|(_, own)| is_it(Some(&own))) {
            return Ok(self.user()?.map(|(id, _)| Conv::User(id)));
        }
        let named = |found: &Found| {
            let user = found.users.iter().find(|user| is_it(Some(&user.name))).map(|user| Conv::User(user.id));
            user.or_else(|| {
                found.groups.iter().find(|group| is_it(Some(&group.name))).map(|group| Conv::Group(group.id))
            })
        };
        match named(&self.friends()?) {
            Some(conv) => Ok(Some(conv)),
            None => Ok(named(&self.search(name)?)),
        }
    }

    /// Makes friends with a user, or sends a friend request where the server wants both to agree.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn add_friend(&self, user: i64) -> Result<Friendship> {
        let me = self.store().me();
        let reply = self.ask(json!({"msgType": 6, "U1": me, "U2": user}))?;
        if let Some(name) = reply["name"].as_str() {
            self.store().remember_names(&[(user, name.to_owned())])?;
        }
        Ok(if reply["errno"] == 202 { Friendship::Asked } else { Friendship::Made })
    }

    /// Removes a user from the user's own list of friends.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn remove_friend(&self, user: i64) -> Result<()> {
        self.ask(json!({"msgType": 7, "TOID": user})).map(drop)
    }

    /// Makes a group, and returns its conversation.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn create_group(&self, name: &str, description: &str) -> Result<Conv> {
        let reply = self.ask(json!({"msgType": 12, "name": name, "description": description}))?;
        reply["GROUPID"].as_i64().map(Conv::Group).ok_or(Error::Misunderstood)
    }

    /// Becomes a member of a group.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn join_group(&self, group: i64) -> Result<()> {
        self.ask(json!({"msgType": 10, "GROUPID": group})).map(drop)
    }

    /// The members of a group.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn members(&self, group: i64) -> Result<Vec<Member>> {
        let reply = self.ask(json!({"msgType": 61, "GROUPID": group}))?;
        let members = reply["members"].as_array().ok_or(Error::Misunderstood)?;
        let member = |member: &Value| {
            let (id, name) = (id(&member["id"])?, member["name"].as_str()?.to_owned());
            Some(Member { id, name, is_creator: member["role"] == "creator" })
        };
        let members: Vec<Member> = members.iter().filter_map(member).collect();
        let names: Vec<(i64, String)> = members.iter().map(|member| (member.id, member.name.clone())).collect();
        self.store().remember_names(&names)?;
        Ok(members)
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn leave_group(&self, group: i64) -> Result<()> {
        self.ask(json!({"msgType": 62, "GROUPID": group})).map(drop)
    }

    /// Removes a member from a group; for its creator.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn remove_member(&self, group: i64, user: i64) -> Result<()> {
        self.ask(json!({"msgType": 63, "GROUPID": group, "USERID": user})).map(drop)
    }

    /// Adds a user to a group; for its creator.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn add_member(&self, group: i64, user: i64) -> Result<()> {
        self.ask(json!({"msgType": 63, "GROUPID": group, "USERID": user, "add": true})).map(drop)
    }

    /// Gives a group another name; for its creator.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn rename_group(&self, group: i64, name: &str) -> Result<()> {
        self.ask(json!({"msgType": 64, "GROUPID": group, "name": name})).map(drop)
    }

    /// Dissolves a group; for its creator.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn dissolve_group(&self, group: i64) -> Result<()> {
        self.ask(json!({"msgType": 65, "GROUPID": group})).map(drop)
    }

    /// Blocks a user, or allows the user again.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn block(&self, user: i64, block: bool) -> Result<()> {
        self.ask(json!({"msgType": 66, "USERID": user, "block": block})).map(drop)
    }

    /// The users whom the user has blocked.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn blocked(&self) -> Result<Vec<Named>> {
        Ok(found(&self.ask(json!({"msgType": 66}))?["blocked"]).users)
    }

    /// Changes the user's own name.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn rename(&self, name: &str) -> Result<()> {
        self.ask(json!({"msgType": 67, "name": name})).map(drop)
    }

    /// Turns read receipts on or off: whether partners see how far the user has read, and the user
    /// how far they have.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn set_receipts(&self, shown: bool) -> Result<()> {
        self.ask(json!({"msgType": 67, "receipts": shown})).map(drop)
    }

    /// The devices of the account.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn devices(&self) -> Result<Vec<Device>> {
        self.devices_after(json!({"msgType": 68}))
    }

    /// Logs a device out, and returns the others.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn revoke_device(&self, device: &str) -> Result<Vec<Device>> {
        self.devices_after(json!({"msgType": 68, "revoke": device}))
    }

    fn devices_after(&self, request: Value) -> Result<Vec<Device>> {
        let reply = self.ask(request)?;
        let devices = reply["devices"].as_array().ok_or(Error::Misunderstood)?;
        let device = |device: &Value| {
            let (name, seen) = (device["device"].as_str()?.to_owned(), device["seen"].as_i64().unwrap_or(0));
            Some(Device { device: name, seen, online: device["online"] == true })
        };
        Ok(devices.iter().filter_map(device).collect())
    }

    /// Changes the password. All other devices are logged out. `proof` is the old password, or a
    /// fresh JSON web token if one has made the account.
    ///
    /// # Errors
    /// As for [`Client::ask`]; 302 if the proof is wrong.
    pub fn change_password<'a>(&self, proof: impl Into<Proof<'a>>, new: &str) -> Result<()> {
        let (member, proof) = proof.into().member();
        self.ask(json!({"msgType": 60, member: proof, "new": new})).map(drop)
    }

    /// Deletes the account for ever. `proof` is the password, or a fresh JSON web token if one has
    /// made the account.
    ///
    /// # Errors
    /// As for [`Client::ask`]; 302 if the proof is wrong.
    pub fn delete_account<'a>(&self, proof: impl Into<Proof<'a>>) -> Result<()> {
        let (member, proof) = proof.into().member();
        self.ask(json!({"msgType": 69, member: proof})).map(drop)
    }

    /// Logs this device out. The client ends; the data stay in the file.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub fn log_out(&self) -> Result<()> {
        let me = self.store().me();
        self.ask(json!({"msgType": 3, "USERID": me}))?;
        // The program may end before the server's farewell comes.
        self.store().forget_token()
    }

    fn remember(&self, found: Found) -> Result<Found> {
        let names: Vec<(i64, String)> = found.users.iter().map(|user| (user.id, user.name.clone())).collect();
        self.store().remember_names(&names)?;
        Ok(found)
    }
}

impl<'a> Proof<'a> {
    /// The member of a request.
    fn member(self) -> (&'static str, &'a str) {
        match self {
            Proof::Password(password) => ("password", password),
            Proof::Jwt(jwt) => ("jwt", jwt),
        }
    }
}

impl<'a> From<&'a str> for Proof<'a> {
    fn from(password: &'a str) -> Proof<'a> {
        Proof::Password(password)
    }
}

impl<'a> From<&'a String> for Proof<'a> {
    fn from(password: &'a String) -> Proof<'a> {
        Proof::Password(password)
    }
}

/// Leaves out the secret.
impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (member, _) = self.member();
        f.debug_tuple("Proof").field(&member).finish()
    }
}

/// Reads a list of level 1, which has ids as texts and says in `isGroup` what they belong to.
fn found(list: &Value) -> Found {
    let mut found = Found::default();
    for entry in list.as_array().into_iter().flatten() {
        let (Some(id), Some(name)) = (id(&entry["id"]), entry["name"].as_str()) else { continue };
        let named = Named { id, name: name.to_owned() };
        if entry["isGroup"] == "1" { found.groups.push(named) } else { found.users.push(named) }
    }
    found
}

fn id(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).filter(|id| *id > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_both_forms() {
        let list = json!([{"id": "2", "isGroup": "0", "name": "bob"}, {"desc": "", "id": "1", "isGroup": "1", "name": "hikers"},
            {"id": 7, "name": "cat"}, {"id": "x", "name": "?"}, {"id": "3"}, 5]);
        let named = |id, name: &str| Named { id, name: name.to_owned() };
        let expected = Found { users: vec![named(2, "bob"), named(7, "cat")], groups: vec![named(1, "hikers")] };
        assert_eq!(found(&list), expected);
        assert_eq!(found(&Value::Null), Found::default());
    }
}
