//! Whatever is made of real files, and in whatever pieces they are written: nothing breaks, and reading piece by
//! piece gives what reading at once gives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_history::{AgentKind, Filter, History, HistoryEvent, Page, Session};
use common::Home;
use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;
use std::path::Path;

/// A real session of each agent: where the file lies, and the session's id.
const REAL: [(AgentKind, &str, &str); 3] = [
    (
        AgentKind::Claude,
        "claude/projects/-home-dev-projects-my-app-1/994418b3-651b-4aae-aad1-2255b15088c1.jsonl",
        "994418b3-651b-4aae-aad1-2255b15088c1",
    ),
    (
        AgentKind::Codex,
        "codex/sessions/2026/11/20/rollout-2026-11-20T18-46-48-01a1fa48-5d60-7781-b471-59e7581fbc02.jsonl",
        "01a1fa48-5d60-7781-b471-59e7581fbc02",
    ),
    (
        AgentKind::Gemini,
        "gemini/tmp/my-app-1/chats/session-2026-11-20T18-04-95af8c04.jsonl",
        "95af8c04-23c5-4cbb-9811-0ce9568eaa3f",
    ),
];

#[derive(Debug, Clone)]
enum Damage {
    Byte(Index, u8),
    Cut(Index),
    DropLine(Index),
    RepeatLine(Index, Index),
    Insert(Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let odd = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"{\"$rewindTo\":\"nothing\"}\n".to_vec()),
        Just(b"{\"$set\":{\"messages\":[]}}\n".to_vec()),
        Just(b"{\"type\":\"user\",\"message\":{\"content\":null}}\n".to_vec()),
        Just(b"{\"type\":\"event_msg\",\"payload\":{\"type\":\"item_completed\",\"item\":[]}}\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        any::<Index>().prop_map(Damage::Cut),
        any::<Index>().prop_map(Damage::DropLine),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::RepeatLine(from, to)),
        (any::<Index>(), odd).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ]
}

fn damaged(mut data: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        if data.is_empty() {
            break;
        }
        let mut lines: Vec<Vec<u8>> = data
            .split_inclusive(|b| *b == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        match damage {
            Damage::Byte(at, byte) => {
                let at = at.index(data.len());
                data[at] = *byte;
                continue;
            }
            Damage::Cut(at) => {
                data.truncate(at.index(data.len()));
                continue;
            }
            Damage::DropLine(at) => drop(lines.remove(at.index(lines.len()))),
            Damage::RepeatLine(from, to) => {
                let line = lines[from.index(lines.len())].clone();
                lines.insert(to.index(lines.len() + 1), line);
            }
            Damage::Insert(at, bytes) => lines.insert(at.index(lines.len() + 1), bytes.clone()),
        }
        data = lines.concat();
    }
    data
}

type Seen = (Option<Session>, Vec<String>, Vec<HistoryEvent>);

/// All that is told of a session, in pages.
fn seen(history: &History, agent: AgentKind, id: &str, page: usize) -> Seen {
    let Ok(session) = history.session(agent, id) else {
        return (None, Vec::new(), Vec::new());
    };
    let (mut lines, mut events) = (Vec::new(), Vec::new());
    let mut from = Some(0);
    while let Some(at) = from {
        let got = history
            .messages(
                agent,
                id,
                Page {
                    from: at,
                    limit: page,
                },
                Filter::Everything,
            )
            .unwrap();
        lines.extend(got.messages.iter().map(|m| m.get().to_owned()));
        from = got.next;
    }
    let mut from = Some(0);
    while let Some(at) = from {
        let got = history
            .events(
                agent,
                id,
                Page {
                    from: at,
                    limit: page,
                },
            )
            .unwrap();
        events.extend(got.events);
        from = got.next;
    }
    (Some(session), lines, events)
}

fn open(home: &Home, index: &str) -> History {
    let mut config = home.config();
    config.index_path = home.path(index);
    History::open(config).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn reading_in_pieces_gives_what_reading_at_once_gives(
        which in 0usize..3,
        damages in prop::collection::vec(damage(), 0..6),
        cuts in prop::collection::vec(any::<Index>(), 0..5),
        page in 1usize..20,
    ) {
        let (agent, rel, id) = REAL[which];
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let data = damaged(fs::read(fixtures.join(rel)).unwrap(), &damages);
        let mut ends: Vec<usize> = cuts.iter().map(|c| c.index(data.len() + 1)).collect();
        ends.push(data.len());
        ends.sort_unstable();

        let home = Home::empty();
        home.put(rel, "");
        let growing = open(&home, "growing.sqlite");
        let mut written = 0;
        for end in ends {
            home.append(rel, &data[written..end]);
            written = end;
            growing.scan().unwrap();
        }
        let in_pieces = seen(&growing, agent, id, 1_000);
        let at_once = open(&home, "fresh.sqlite");
        prop_assert_eq!(&in_pieces, &seen(&at_once, agent, id, 1_000));
        // Small pages join to the large one. (Codex's results are told twice; what a page knows of the lines before
        // it is bounded, but these files are smaller than that.)
        prop_assert_eq!(&in_pieces, &seen(&at_once, agent, id, page));
        if damages.is_empty() {
            prop_assert!(in_pieces.0.is_some_and(|session| session.message_count > 3));
        }
    }
}
