//! Sets up the rooms: pairs of users, and groups.

use std::io::{self, Read};
use std::path::Path;

use crate::accounts::{self, Account};
use crate::carrier::{Address, Stream};
use crate::progress::Progress;
use crate::relay;
use crate::wire::{self, Client, Framing, Template, To};

/// The rooms to set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rooms: usize,
    /// The number of users in a room. A room of two is a pair; a larger one is a group.
    pub(crate) members: usize,
    /// The number of members who send; the others only receive.
    pub(crate) senders: usize,
    pub(crate) size: usize,
    pub(crate) framing: Framing,
    /// Users who are also logged in and send nothing.
    pub(crate) bystanders: usize,
}

/// The connections of one room. The first ones send; all the others of the room receive.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) members: Vec<Stream>,
    pub(crate) templates: Vec<Template>,
}

/// The rooms, and further connections that must only stay open.
pub(crate) struct Rooms {
    pub(crate) rooms: Vec<Room>,
    pub(crate) bystanders: Vec<Stream>,
}

/// Sets up the rooms on a server: registers and logs in users, creates groups.
pub(crate) fn on_server(
    plan: Plan,
    addresses: &[Address],
    accounts_file: Option<&Path>,
    progress: &Progress,
) -> io::Result<Rooms> {
    let talkers = plan.rooms * plan.members;
    let accounts = accounts::provide(addresses[0], talkers + plan.bystanders, accounts_file, progress)?;
    let (talkers, bystanders) = accounts.split_at(talkers);
    progress.stage("logging in", accounts.len());
    let accounts: Vec<&[Account]> = talkers.chunks(plan.members).collect();
    // A server assigns its connections to its loops in turn. The first members of all rooms, who
    // send, connect first, so that they are not all on one loop.
    let mut clients: Vec<Vec<Client>> = accounts.iter().map(|_| Vec::with_capacity(plan.members)).collect();
    for member in 0..plan.members {
        for (n, (room, accounts)) in clients.iter_mut().zip(&accounts).enumerate() {
            // The members are spread over the nodes, beginning with another node in each room.
            let node = addresses[(n + member) % addresses.len()];
            room.push(log_in(node, &accounts[member], plan, progress)?);
        }
    }
    let rooms = clients.into_iter().zip(accounts).map(|(clients, accounts)| set_up(clients, accounts, plan));
    let rooms = rooms.collect::<io::Result<_>>()?;
    let bystanders = bystanders.iter().enumerate().map(|(n, account)| {
        log_in(addresses[n % addresses.len()], account, plan, progress).and_then(Client::into_stream)
    });
    Ok(Rooms { rooms, bystanders: bystanders.collect::<io::Result<_>>()? })
}

fn log_in(address: Address, account: &Account, plan: Plan, progress: &Progress) -> io::Result<Client> {
    let client = accounts::log_in(address, account, plan.framing)?;
    progress.step();
    Ok(client)
}

fn set_up(mut clients: Vec<Client>, accounts: &[Account], plan: Plan) -> io::Result<Room> {
    let group = match plan.members {
        2 => None,
        _ => {
            let name = format!("raybench {}", accounts[0].id);
            let reply = clients[0].ask(&wire::create_group(accounts[0].id, &name))?;
            let group = reply["GROUPID"].as_i64().ok_or_else(|| io::Error::other(format!("no GROUPID in {reply}")))?;
            for (client, account) in clients.iter_mut().zip(accounts).skip(1) {
                client.ask(&wire::join_group(account.id, group))?;
            }
            Some(group)
        }
    };
    let templates = (0..plan.senders).map(|sender| {
        let to = group.map_or_else(|| To::User(accounts[1 - sender].id), To::Group);
        Template::new(accounts[sender].id, to, sender, plan.size, plan.framing).map_err(io::Error::other)
    });
    let templates = templates.collect::<io::Result<_>>()?;
    let members = clients.into_iter().map(Client::into_stream).collect::<io::Result<_>>()?;
    Ok(Room { members, templates })
}

/// Sets up the rooms on a relay, which makes rooms of consecutive connections and has no users.
pub(crate) fn on_relay(plan: Plan, address: Address) -> io::Result<Rooms> {
    let room = || -> io::Result<Room> {
        let members = (0..plan.members).map(|_| {
            let mut stream = Client::connect(address, plan.framing)?.into_stream()?;
            stream.read_exact(&mut [relay::ACCEPTED])?;
            Ok(stream)
        });
        let members = members.collect::<io::Result<Vec<_>>>()?;
        let templates = (0..plan.senders).map(|sender| {
            Template::new(sender as i64, To::User(0), sender, plan.size, plan.framing).map_err(io::Error::other)
        });
        Ok(Room { members, templates: templates.collect::<io::Result<_>>()? })
    };
    let rooms = (0..plan.rooms).map(|_| room()).collect::<io::Result<_>>()?;
    Ok(Rooms { rooms, bystanders: Vec::new() })
}
