//! The configuration as it is now: an edit counts from the next request.

use crate::files::balance::{self, Balance};
use crate::files::filters::Filters;
use crate::files::notices::Notices;
use crate::files::routes::{self, Routes};
use crate::files::upstreams::Upstreams;
use crate::files::watched::Watched;
use crate::home::Home;
use crate::service::Service;
use crate::settings::Settings;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// All files of a home.
#[derive(Debug)]
pub struct Live {
    home: Home,
    upstreams: [Watched<Upstreams>; 3],
    balance: Watched<Balance>,
    routes: Watched<Routes>,
    settings: Watched<Settings>,
    filters: Watched<Filters>,
    kept: Mutex<Kept>,
    renamed: Mutex<Vec<Renamed>>,
    any_renamed: AtomicBool,
}

/// What was read of the files, as long as they are what they were.
#[derive(Debug)]
struct Kept {
    notices: Notices,
    snapshots: [Option<Snapshot>; 3],
    /// The upstreams that were there before, to notice other names.
    upstreams: [Arc<Upstreams>; 3],
}

/// An upstream has another name in its file now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// Whose.
    pub service: Service,
    /// Its name before.
    pub from: Arc<str>,
    /// Its name now.
    pub to: Arc<str>,
}

/// What a service goes by during one request.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Who can be asked.
    pub upstreams: Arc<Upstreams>,
    /// How they are shared, for all services.
    balance: Arc<Balance>,
    /// Models, for all services.
    routes: Arc<Routes>,
    /// All else.
    pub settings: Arc<Settings>,
    /// What requests are changed by.
    pub filters: Arc<Filters>,
    /// Why what is to be hidden is not known: then requests are refused, unless `fail_open` says otherwise.
    pub unsafe_because: Option<String>,
    service: Service,
}

impl Snapshot {
    /// How the upstreams are shared.
    #[must_use]
    pub fn balance(&self) -> &balance::Rules {
        self.balance.of(self.service)
    }

    /// Which models go where.
    #[must_use]
    pub fn routes(&self) -> &routes::Rules {
        self.routes.of(self.service)
    }
}

/// All that a snapshot is made of.
fn files(home: &Home) -> Vec<PathBuf> {
    let upstreams = Service::ALL.map(|service| home.upstreams(service));
    let others = [home.balance(), home.routes(), home.settings(), home.filters()];
    upstreams.into_iter().chain(others).collect()
}

impl Live {
    /// The files of `home`.
    #[must_use]
    pub fn new(home: Home) -> Self {
        Self {
            upstreams: Service::ALL.map(|s| Watched::new(home.upstreams(s), Upstreams::parse)),
            balance: Watched::new(home.balance(), Balance::parse),
            routes: Watched::new(home.routes(), Routes::parse),
            settings: Watched::new(home.settings(), Settings::parse),
            filters: Watched::new(home.filters(), Filters::parse),
            kept: Mutex::new(Kept {
                notices: Notices::of(files(&home), vec![home.path().to_owned(), home.data()]),
                snapshots: Default::default(),
                upstreams: Default::default(),
            }),
            renamed: Mutex::default(),
            any_renamed: AtomicBool::new(false),
            home,
        }
    }

    /// Where they lie.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// What counts for a request of `service` that comes now.
    #[must_use]
    pub fn snapshot(&self, service: Service) -> Snapshot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.notices.may_have_changed() {
            kept.snapshots = Default::default();
        }
        if let Some(snapshot) = &kept.snapshots[service.index()] {
            return snapshot.clone();
        }
        let snapshot = self.read(service);
        let before = std::mem::replace(&mut kept.upstreams[service.index()], snapshot.upstreams.clone());
        if !Arc::ptr_eq(&before, &snapshot.upstreams)
            && let Some((from, to)) = snapshot.upstreams.renamed(&before)
        {
            let renamed = Renamed {
                service,
                from: from.clone(),
                to: to.clone(),
            };
            self.renamed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(renamed);
            self.any_renamed.store(true, Ordering::Release);
        }
        kept.snapshots[service.index()] = Some(snapshot.clone());
        snapshot
    }

    /// Tells of each upstream that has got another name, whoever gave it (a program beside us, an editor), once, to one
    /// caller; others wait until it has followed.
    pub fn each_renamed(&self, follow: impl FnMut(Renamed)) {
        if self.any_renamed.load(Ordering::Acquire) {
            let mut renamed = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
            renamed.drain(..).for_each(follow);
            self.any_renamed.store(false, Ordering::Release);
        }
    }

    fn read(&self, service: Service) -> Snapshot {
        let (filters, filter_fault) = self.filters.get_with_fault();
        let (settings, settings_fault) = self.settings.get_with_fault();
        // The last good settings know whether a fault may be passed over.
        let fault = filter_fault
            .or(settings_fault)
            .filter(|_| !settings.redaction.fail_open);
        Snapshot {
            filters,
            unsafe_because: fault.map(|fault| fault.to_string()),
            upstreams: self.upstreams[service.index()].get(),
            balance: self.balance.get(),
            routes: self.routes.get(),
            settings,
            service,
        }
    }

    /// The settings as they are now.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.get()
    }

    /// What is wrong with the file of a service's upstreams.
    #[must_use]
    pub fn upstreams_fault(&self, service: Service) -> Option<String> {
        self.upstreams[service.index()]
            .fault()
            .map(|fault| fault.to_string())
    }

    /// What is wrong with the files that say what is hidden.
    #[must_use]
    pub fn filter_fault(&self) -> Option<String> {
        let fault = self.filters.fault().or_else(|| self.settings.fault());
        fault.map(|fault| fault.to_string())
    }

    /// Everything that is wrong with the files, in words.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut all = Vec::new();
        for file in &self.upstreams {
            all.extend(file.fault().map(|f| f.to_string()));
            all.extend(file.get().faults.iter().cloned());
        }
        all.extend(self.balance.fault().map(|f| f.to_string()));
        all.extend(self.routes.fault().map(|f| f.to_string()));
        all.extend(self.settings.fault().map(|f| f.to_string()));
        all.extend(self.filters.fault().map(|f| f.to_string()));
        all
    }
}
