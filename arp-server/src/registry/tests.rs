use super::*;
use arp_common::protocol::Mode;
use std::time::Duration;
use tokio::sync::mpsc;

fn registry(max_clients: usize) -> Registry {
    let limits = PoolLimits {
        target: 0,
        max_tunnels: 1,
        max_waiting: 1,
        wait: Duration::from_secs(1),
    };
    Registry::new(limits, max_clients, (1, 2))
}

fn entry(id: &str) -> (Entry, mpsc::Receiver<Box<Command>>) {
    let (tx, rx) = mpsc::channel(8);
    let id: ClientId = id.parse().unwrap();
    let about = About {
        peer: "192.0.2.1:1".parse().unwrap(),
        agent: None,
        version: 2,
        mode: None,
    };
    let names = vec![id.clone().into()];
    let key = Some(Fingerprint::from_bytes([1; 32]));
    (
        Entry {
            id,
            names,
            key,
            services: Vec::new(),
            about,
            tx,
        },
        rx,
    )
}

/// The links of two registrations that reach the pool in the wrong order.
#[tokio::test]
async fn generations_only_rise() {
    let registry = registry(9);
    let client = registry.client(&"demo".parse().unwrap());
    let link = |generation, mode| Link {
        generation,
        version: 2,
        mode: Some(mode),
        key: None,
        tx: mpsc::channel(1).0,
    };
    client.pool.link_up(link(2, Mode::Command));
    client.pool.link_up(link(1, Mode::Tcp));
    assert_eq!(client.pool.mode(), Some(Mode::Command), "the newer one stays");
    client.pool.link_down(1, true);
    assert!(client.pool.is_online(), "the end of the older one means nothing");
    client.pool.link_down(2, true);
    client.pool.link_up(link(1, Mode::Tcp));
    assert!(!client.pool.is_online(), "it is over, however late it comes");
}

#[tokio::test]
async fn a_client_stays_online_however_its_registrations_interleave() {
    let registry = Arc::new(registry(9));
    // Made here, because a pool looks after itself in a task.
    registry.client(&"demo".parse().unwrap());
    for _ in 0..200 {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let registry = registry.clone();
                std::thread::spawn(move || {
                    let (entry, rx) = entry("demo");
                    let (client, generation) = registry.register(entry).unwrap();
                    (client, generation, rx)
                })
            })
            .collect();
        let mut all: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        all.sort_by_key(|(_, generation, _)| *generation);
        let (client, last, _rx) = all.pop().unwrap();
        for (client, generation, _) in &all {
            registry.unregister(client, *generation, false);
        }
        assert!(client.pool.is_online() && registry.is_present("demo"));
        registry.unregister(&client, last, false);
        assert!(!client.pool.is_online());
    }
}

#[tokio::test]
async fn asking_changes_nothing_and_a_full_relay_says_which_limit_was_met() {
    let registry = registry(1);
    let (one, _rx) = entry("one");
    let (client, _) = registry.register(one).unwrap();
    assert!(!client.is_used());
    let (two, _rx) = entry("two");
    let refused = registry.check(&two.id, &two.names, two.key).unwrap_err();
    assert_eq!(refused, RegisterError::Full(1));
    assert!(refused.told().contains("--max-clients 1"));
    assert!(!client.is_used(), "that was no visitor");
    struct Uncounted;
    impl Tally for Uncounted {
        fn asked(&mut self, _: &str, _: u128, _: bool) {}
    }
    let found = registry.find("one", Spelling::Exact, &mut Uncounted);
    assert!(matches!(found, Some(Holder::Client(..))) && client.is_used());
    assert_eq!(registry.present().len(), 1);
}
