use super::super::Forget;
use super::*;

const LIMITS: Limits = Limits { names: 8, per_key: 8 };

fn key(n: u8) -> Option<Fingerprint> {
    Some(Fingerprint::from_bytes([n; 32]))
}

fn claim(client: &str, tokens: &[&str], key: Option<Fingerprint>) -> Claim {
    Claim {
        client: client.parse().unwrap(),
        tokens: tokens.iter().map(|t| t.parse().unwrap()).collect(),
        id_token: true,
        key,
        may_ask: true,
        may_bind: 65,
    }
}

fn nobody(_: &str) -> bool {
    false
}

fn everybody(_: &str) -> bool {
    true
}

fn ask(db: &mut Db, claim: &Claim) -> Verdict {
    db.claim_all(&[claim], LIMITS, &everybody).unwrap().remove(0)
}

fn open(dir: &tempfile::TempDir) -> Db {
    Db::open(&dir.path().join("store.db"), false).unwrap()
}

fn forget(db: &mut Db, patterns: &[&str]) -> usize {
    let patterns = patterns.iter().map(|p| (*p).to_owned()).collect();
    let what = Forget {
        patterns,
        ..Forget::default()
    };
    db.forget(&what).unwrap().len()
}

/// Makes a client look as if it had last been here `days` ago.
fn age(db: &Db, client: &str, days: i64) {
    let seen = now() - days * 86_400;
    let changed = db
        .sql
        .execute(
            "UPDATE bindings SET last_seen = ?1 WHERE client = ?2",
            params![seen, client],
        )
        .unwrap();
    assert!(changed > 0);
}

#[test]
fn a_name_belongs_to_the_first_key_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(&dir);
    let bound = |name: &str| Verdict::Bound(name.parse().unwrap());
    assert_eq!(
        ask(&mut db, &claim("Demo", &["alice"], key(1))),
        Verdict::Granted(2)
    );
    assert_eq!(ask(&mut db, &claim("Demo", &[], key(1))), Verdict::Granted(0));
    drop(db);
    let mut db = open(&dir);
    // Neither id nor token, in no case, not as a token, not after it was given up, not in plain.
    assert_eq!(ask(&mut db, &claim("demo", &[], key(2))), bound("demo"));
    assert_eq!(ask(&mut db, &claim("x", &["DEMO"], key(2))), bound("DEMO"));
    assert_eq!(ask(&mut db, &claim("x", &["Alice"], key(2))), bound("Alice"));
    assert_eq!(ask(&mut db, &claim("demo", &[], None)), bound("demo"));
    // A refused claim binds nothing.
    assert_eq!(ask(&mut db, &claim("x", &[], key(3))), Verdict::Granted(1));
    let known = db.bindings(9).unwrap();
    let demo = known.iter().find(|b| b.client.as_str() == "Demo").unwrap();
    assert_eq!((demo.names, demo.routed.len(), Some(demo.key)), (2, 1, key(1)));
    assert_eq!(forget(&mut db, &["Demo"]), 2);
    assert_eq!(ask(&mut db, &claim("demo", &[], key(2))), Verdict::Granted(1));
}

#[test]
fn plain_clients_bind_nothing_and_the_table_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(&dir);
    assert_eq!(ask(&mut db, &claim("old", &[], None)), Verdict::Granted(0));
    assert!(db.bindings(9).unwrap().is_empty());
    let tokens = ["a", "b", "c", "d", "e", "f", "g"];
    assert_eq!(ask(&mut db, &claim("one", &tokens, key(1))), Verdict::Granted(8));
    // Everybody is here: nobody makes room.
    assert_eq!(
        ask(&mut db, &claim("two", &[], key(2))),
        Verdict::Full(Limit::Relay)
    );
    assert_eq!(ask(&mut db, &claim("one", &tokens, key(1))), Verdict::Granted(0));
}

#[test]
fn whoever_tried_too_often_learns_nothing_and_owners_do_not_mind() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(&dir);
    assert_eq!(ask(&mut db, &claim("one", &[], key(1))), Verdict::Granted(1));
    let tired = |id, k| Claim {
        may_ask: false,
        ..claim(id, &[], k)
    };
    assert_eq!(ask(&mut db, &tired("one", key(2))), Verdict::TooManyTries);
    assert_eq!(ask(&mut db, &tired("none", key(2))), Verdict::TooManyTries);
    assert_eq!(ask(&mut db, &tired("one", key(1))), Verdict::Granted(0));
}

#[test]
fn an_address_that_may_bind_no_more_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(&dir);
    let spent = |id, tokens: &[&str]| Claim {
        may_bind: 1,
        ..claim(id, tokens, key(1))
    };
    assert_eq!(ask(&mut db, &spent("one", &[])), Verdict::Granted(1));
    assert_eq!(
        ask(&mut db, &spent("one", &["a", "b"])),
        Verdict::Full(Limit::Address)
    );
    assert_eq!(ask(&mut db, &spent("one", &["a"])), Verdict::Granted(1));
}

#[test]
fn a_key_has_its_share_and_its_own_discarded_names_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(&dir);
    let ask = |db: &mut Db, tokens: &[&str]| {
        let limits = Limits {
            names: 100,
            per_key: 3,
        };
        db.claim_all(&[&claim("one", tokens, key(1))], limits, &everybody)
            .unwrap()
            .remove(0)
    };
    assert_eq!(ask(&mut db, &["a", "b"]), Verdict::Granted(3));
    assert_eq!(ask(&mut db, &["a", "b", "c"]), Verdict::Full(Limit::Key));
    // "a" is given up, and makes room at the next name.
    assert_eq!(ask(&mut db, &["b"]), Verdict::Granted(0));
    assert_eq!(ask(&mut db, &["b", "c"]), Verdict::Granted(1));
    assert_eq!(db.bindings(9).unwrap()[0].names, 3);
    assert_eq!(forget(&mut db, &["a"]), 0);
}

#[test]
fn those_who_are_away_and_never_used_make_room_the_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(&dir);
    for n in 1..=8 {
        let (id, key) = (format!("c{n}"), key(n));
        assert_eq!(ask(&mut db, &claim(&id, &[], key)), Verdict::Granted(1));
        age(&db, &id, 10 + i64::from(n));
    }
    // c8 is the oldest, and has been used; c7 is here.
    db.seen(&"c8".parse().unwrap(), &key(8).unwrap(), true).unwrap();
    age(&db, "c8", 50);
    let here = |id: &str| id == "c7";
    let new = |db: &mut Db, id: &str| {
        db.claim_all(&[&claim(id, &[], key(99))], LIMITS, &here)
            .unwrap()
            .remove(0)
    };
    assert_eq!(new(&mut db, "new"), Verdict::Granted(1));
    let there = |db: &Db, id: &str| db.bindings(99).unwrap().iter().any(|b| b.client.as_str() == id);
    assert!(!there(&db, "c6") && there(&db, "c7") && there(&db, "c8") && there(&db, "c5"));
    // One who was used goes only when it has been away for very long.
    for n in 1..=5 {
        db.seen(&format!("c{n}").parse().unwrap(), &key(n).unwrap(), true)
            .unwrap();
    }
    assert_eq!(new(&mut db, "newer"), Verdict::Full(Limit::Relay));
    age(&db, "c8", 400);
    assert_eq!(new(&mut db, "newer"), Verdict::Granted(1));
    assert!(!there(&db, "c8"));
}

#[test]
fn what_is_known_is_recognised_without_writing() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(&dir);
    assert_eq!(ask(&mut db, &claim("one", &["a"], key(1))), Verdict::Granted(2));
    age(&db, "one", 9);
    // As a killed relay leaves it: with a journal, and nobody who has it open.
    let left = tempfile::tempdir().unwrap();
    for file in ["store.db", "store.db-wal"] {
        std::fs::copy(dir.path().join(file), left.path().join(file)).unwrap();
    }
    let db = Db::copy(&left.path().join("store.db")).unwrap();
    let known = |c: &Claim| db.recognise(c).unwrap();
    assert_eq!(known(&claim("one", &["a"], key(1))), Some(Verdict::Granted(0)));
    assert_eq!(known(&claim("one", &[], key(1))), Some(Verdict::Granted(0)));
    assert_eq!(known(&claim("one", &["b"], key(1))), None);
    assert_eq!(known(&claim("new", &[], key(2))), None);
    assert_eq!(known(&claim("plain", &[], None)), Some(Verdict::Granted(0)));
    let bound = Some(Verdict::Bound("one".parse().unwrap()));
    assert_eq!(known(&claim("one", &[], key(2))), bound);
}

#[test]
fn a_full_disk_keeps_new_names_out_and_known_ones_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(&dir);
    assert_eq!(ask(&mut db, &claim("one", &["a"], key(1))), Verdict::Granted(2));
    // Not one page more than there is: SQLITE_FULL at the first that is needed.
    db.sql
        .execute_batch("PRAGMA max_page_count = 1; CREATE TABLE IF NOT EXISTS filled (x);")
        .unwrap_err();
    let tokens: Vec<String> = (0..60).map(|n| format!("{n}-{}", "x".repeat(100))).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let big = claim("two", &tokens, key(2));
    let limits = Limits {
        names: 1000,
        per_key: 1000,
    };
    assert!(db.claim_all(&[&big], limits, &nobody).is_err());
    assert_eq!(
        db.recognise(&claim("one", &["a"], key(1))).unwrap(),
        Some(Verdict::Granted(0))
    );
    assert_eq!(db.recognise(&big).unwrap(), None);
}

#[test]
fn clients_are_forgotten_by_pattern_age_and_use() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(&dir);
    let limits = Limits {
        names: 100,
        per_key: 100,
    };
    for (n, id) in ["ci-1", "ci-2", "CI-3", "prod"].iter().enumerate() {
        let tokens = [format!("{id}-web")];
        let claim = claim(id, &[&tokens[0]], key(n as u8));
        db.claim_all(&[&claim], limits, &nobody).unwrap();
    }
    db.seen(&"ci-2".parse().unwrap(), &key(1).unwrap(), true).unwrap();
    age(&db, "ci-1", 40);
    age(&db, "ci-2", 40);
    let by = |patterns: &[&str], days: Option<i64>, never_used| Forget {
        patterns: patterns.iter().map(|p| (*p).to_owned()).collect(),
        older_than: days.map(|d| d * 86_400),
        never_used,
    };
    assert_eq!(db.forget(&by(&["ci-*"], Some(50), false)).unwrap().len(), 0);
    assert_eq!(db.forget(&by(&[], Some(30), true)).unwrap(), ["ci-1", "ci-1-web"]);
    assert_eq!(db.forget(&by(&["prod-w?b"], None, false)).unwrap(), ["prod-web"]);
    assert_eq!(db.forget(&by(&["CI-*"], None, false)).unwrap().len(), 3);
    let left = db.bindings(9).unwrap();
    assert_eq!(left.iter().map(|b| b.names).sum::<usize>(), 2);
    assert_eq!(forget(&mut db, &["*"]), 2);
}
