//! What the service manager is told (systemd's `sd_notify`): up, reloading, stopping, and signs of life. Where none
//! runs us, all of it does nothing.
//!
//! A sign of life says that the daemon does its work, not merely that a timer runs: each loop that matters has a
//! [`Pulse`], and the watchdog is fed only after all of them have answered.

use std::future::Future;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Of the time that the service manager waits for a sign of life, the part after which we give one, and the part
/// that our loops have to answer in. Together they leave a third for a busy machine.
const PART: u32 = 3;

/// The daemon serves. `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    tell(&[State::Ready, State::Status(status)]);
}

/// The daemon reads its settings anew; [`ready`] ends it.
pub fn reloading() {
    tell(&[State::Reloading]);
}

/// The daemon stops.
pub fn stopping() {
    tell(&[State::Stopping]);
}

/// What `systemctl status` shows.
pub fn status(text: &str) {
    tell(&[State::Status(text)]);
}

/// The time after which the service manager takes us for stuck, if it looks at all.
pub fn watchdog_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        sd_notify::watchdog_enabled().filter(|time| !time.is_zero())
    }
    #[cfg(not(unix))]
    None
}

#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(unix), expect(dead_code, reason = "there is nobody to be told"))]
enum State<'a> {
    Ready,
    Reloading,
    Stopping,
    Alive,
    Status(&'a str),
}

#[cfg(unix)]
fn tell(states: &[State<'_>]) {
    use sd_notify::NotifyState as S;
    let mut told = Vec::new();
    for state in states {
        match state {
            State::Ready => told.push(S::Ready),
            State::Reloading => {
                told.push(S::Reloading);
                // Which it is asked for together with.
                told.extend(S::monotonic_usec_now());
            }
            State::Stopping => told.push(S::Stopping),
            State::Alive => told.push(S::Watchdog),
            State::Status(text) => told.push(S::Status(text)),
        }
    }
    if let Err(e) = sd_notify::notify(&told) {
        tracing::debug!("the service manager cannot be told {states:?}: {e}");
    }
}

#[cfg(not(unix))]
fn tell(_: &[State<'_>]) {}

/// The loops whose life is asked for.
#[derive(Debug, Default)]
pub struct Pulses(Vec<(&'static str, mpsc::Sender<oneshot::Sender<()>>)>);

/// One loop's side: it answers as long as the loop is not stuck.
#[derive(Debug)]
pub struct Pulse(mpsc::Receiver<oneshot::Sender<()>>);

impl Pulses {
    /// A pulse for one more loop; the name is for the log.
    pub fn add(&mut self, name: &'static str) -> Pulse {
        let (tx, rx) = mpsc::channel(1);
        self.0.push((name, tx));
        Pulse(rx)
    }

    /// Asks all loops; those that have ended are not missed.
    ///
    /// # Errors
    /// The first one that does not answer `within` this time.
    pub async fn beat(&self, within: Duration) -> Result<(), &'static str> {
        let end = tokio::time::Instant::now() + within;
        for (name, tx) in &self.0 {
            let ask = async {
                let (answer, answered) = oneshot::channel();
                if tx.send(answer).await.is_ok() {
                    // An error says that the loop has ended meanwhile.
                    let _ = answered.await;
                }
            };
            tokio::time::timeout_at(end, ask).await.map_err(|_| *name)?;
        }
        Ok(())
    }

    /// Gives signs of life until `stop`, each after all loops have shown theirs.
    pub async fn watch(self, stop: CancellationToken) {
        let Some(time) = watchdog_time() else { return };
        let part = time / PART;
        let mut stuck = false;
        loop {
            match self.beat(part).await {
                Ok(()) => {
                    stuck = false;
                    tell(&[State::Alive]);
                }
                Err(name) if !std::mem::replace(&mut stuck, true) => {
                    tracing::error!(
                        "{name} does not answer: no more signs of life for the service manager, which will start \
                         this service anew"
                    );
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(part) => {}
            }
        }
    }
}

impl Pulse {
    /// Runs a loop, and answers for it in the same task: when that is stuck, nobody answers.
    pub async fn along<F: Future>(mut self, work: F) -> F::Output {
        let answer = async move {
            while let Some(asked) = self.0.recv().await {
                let _ = asked.send(());
            }
            std::future::pending::<std::convert::Infallible>().await
        };
        tokio::select! {
            biased;
            done = work => done,
            never = answer => match never {},
        }
    }

    /// Answers by doing something that a stuck daemon could not do.
    pub async fn by(mut self, mut proof: impl FnMut()) {
        while let Some(asked) = self.0.recv().await {
            proof();
            let _ = asked.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const SOON: Duration = Duration::from_millis(100);
    const LATE: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn who_is_stuck_is_named_and_who_has_ended_is_not_missed() {
        let mut pulses = Pulses::default();
        let healthy = tokio::spawn(pulses.add("healthy").along(std::future::pending::<()>()));
        tokio::spawn(pulses.add("ended").along(async {})).await.unwrap();
        assert_eq!(pulses.beat(LATE).await, Ok(()));
        // Stuck as a loop would be: it waits for a lock that nobody gives back.
        let lock: &'static Mutex<()> = Box::leak(Box::default());
        let (free, freed) = std::sync::mpsc::channel::<()>();
        let (tell, is_held) = oneshot::channel();
        let holder = std::thread::spawn(move || {
            let _held = lock.lock();
            let _ = tell.send(());
            let _ = freed.recv();
        });
        is_held.await.unwrap();
        let (stuck_in, is_in) = oneshot::channel();
        let blocked = pulses.add("blocked");
        let blocked = tokio::spawn(blocked.along(async move {
            let _ = stuck_in.send(());
            drop(lock.lock());
            std::future::pending::<()>().await;
        }));
        is_in.await.unwrap();
        assert_eq!(pulses.beat(SOON).await, Err("blocked"));
        drop(free);
        holder.join().unwrap();
        assert_eq!(pulses.beat(LATE).await, Ok(()));
        healthy.abort();
        blocked.abort();
    }

    #[tokio::test]
    async fn a_proof_is_given_each_time() {
        let mut pulses = Pulses::default();
        let (tx, mut rx) = mpsc::unbounded_channel();
        tokio::spawn(pulses.add("one").by(move || tx.send(()).unwrap()));
        for _ in 0..2 {
            assert_eq!(pulses.beat(LATE).await, Ok(()));
            assert!(rx.try_recv().is_ok());
        }
    }
}
