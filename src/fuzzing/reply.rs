//! The composed replies: for any texts, one line of compact JSON with its keys in byte order.

use serde_json::Value;

use crate::protocol::{self, GroupId, Id, ReplyKind, UserId};
use crate::store::{Group, KeptMessage, MessageId, User};

/// Takes the bytes as lines of text, used as the texts from the database.
pub fn reply(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let texts: Vec<&str> = text.split('\n').collect();
    let number = i32::try_from(data.len()).unwrap_or(i32::MAX);
    let user = |text: &str| User { id: UserId(number), name: text.to_owned() };
    let group = |texts: &[&str]| Group {
        id: GroupId(number),
        name: texts[0].to_owned(),
        description: texts[texts.len() - 1].to_owned(),
    };
    let users: Vec<User> = texts.iter().copied().map(user).collect();
    let groups: Vec<Group> = texts.chunks(2).map(group).collect();
    let kept = |text: &&str| KeptMessage { id: MessageId(1), text: (*text).to_owned() };
    let kept: Vec<KeptMessage> = texts.iter().map(kept).collect();
    let id = i64::from(number) << 31 | 7;

    let seen = |reply: &str| -> Value {
        let value: Value = serde_json::from_str(reply).unwrap_or_else(|error| panic!("{error}: {reply}"));
        // A map of values has its keys in byte order.
        assert_eq!(value.to_string(), reply);
        assert!(!reply.contains('\n'), "one line: {reply}");
        let errno = value["errno"].to_string();
        assert_eq!(ReplyKind::NAMES[ReplyKind::of(reply).place()], errno, "{reply}");
        value
    };
    for reply in [
        protocol::registered(UserId(number)),
        protocol::no_such_user(Id(id).into()),
        protocol::not_yourself(Id(id).into()),
        protocol::no_such_group(Id(id).into()),
    ] {
        seen(&reply);
    }
    for reply in [
        protocol::friend_added(UserId(number), texts[0]),
        protocol::new_friend(UserId(number), texts[0]),
        protocol::joined(GroupId(number), texts[0]),
        protocol::group_created(GroupId(number), texts[0]),
    ] {
        assert_eq!(seen(&reply)["name"], texts[0]);
    }
    let of_list = |list: &Value, key: &str| -> Vec<String> {
        let items = list.as_array().expect("a list");
        items.iter().map(|item| item[key].as_str().unwrap_or("none").to_owned()).collect()
    };
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let contacts = seen(&protocol::contacts(&users, &groups));
    assert_eq!(of_list(&contacts["friends"], "name"), [texts.as_slice(), &names].concat());
    assert_eq!(of_list(&seen(&protocol::groups(&groups))["groups"], "name"), names);
    let found = seen(&protocol::search_results(&users, &groups));
    assert_eq!(of_list(&found["results"], "name"), [texts.as_slice(), &names].concat());
    assert_eq!(seen(&protocol::messages(&kept))["msgs"], Value::from(texts));
}
