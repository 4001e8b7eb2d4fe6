//! Real servers of other protocols for tests, small and on free ports; and a plain one that echoes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// A server process; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its files.
    pub dir: TempDir,
    _child: Child,
}

/// Is this program here? CI has all of them.
pub fn has(program: &str) -> bool {
    find(program).is_some() || crate::skip(&format!("{program} is missing; scripts/test.sh installs it"))
}

/// Where a program is, PostgreSQL's own folders included.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|v| v.path().join("bin")));
    }
    places.into_iter().map(|p| p.join(program)).find(|p| p.exists())
}

/// A command as a user that servers accept: they refuse to run as root.
fn as_user(user: &str, program: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if root {
        let mut command = Command::new("runuser");
        command.args(["-u", user, "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

async fn answers(addr: SocketAddr) {
    let wait = async {
        while TcpStream::connect(addr).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::daemon::PATIENCE, wait)
        .await
        .expect("the server listens in time");
}

impl Server {
    fn start(mut command: Command, port: u16, dir: TempDir) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            dir,
            _child: command.kill_on_drop(true).spawn().expect("it starts"),
        }
    }

    /// PostgreSQL, which takes the user `bob` with the password `s3cret`.
    pub async fn postgres() -> Self {
        Self::start_postgres(None).await
    }

    /// The same, with TLS by this certificate and its key.
    pub async fn postgres_with_tls(cert: &Path, key: &Path) -> Self {
        Self::start_postgres(Some((cert, key))).await
    }

    async fn start_postgres(tls: Option<(&Path, &Path)>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let run = async |command: &mut Command| {
            let done = command.stdin(Stdio::null()).output().await.expect("it runs");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        let password = dir.path().join("password");
        std::fs::write(&password, "s3cret").expect("a file");
        open_to_all(dir.path());
        open_to_all(&password);
        let data = dir.path().join("data");
        let initdb = find("initdb").expect("initdb");
        let mut init = as_user("postgres", &initdb);
        init.args([
            "--auth=scram-sha-256",
            "--no-sync",
            "-U",
            "bob",
            "-E",
            "UTF8",
            "--locale=C",
        ]);
        init.arg("--pwfile").arg(&password).arg("-D").arg(&data);
        run(&mut init).await;
        let port = crate::ports::free();
        let mut command = as_user("postgres", &find("postgres").expect("postgres"));
        let text = format!("{port}");
        command.args(["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-p", &text]);
        command.args([
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=20",
            "-c",
            "shared_buffers=8MB",
        ]);
        if let Some((cert, key)) = tls {
            for (from, name) in [(cert, "server.crt"), (key, "server.key")] {
                // Written by its own user: it takes no key that others could read.
                let mut copy = as_user("postgres", Path::new("/bin/sh"));
                copy.args(["-c", "umask 077; cat > \"$0\""]).arg(data.join(name));
                copy.stdin(std::fs::File::open(from).expect("a file"));
                let done = copy.status().await.expect("it runs");
                assert!(done.success(), "{name} is copied");
            }
            command.args(["-c", "ssl=on"]);
        }
        command.arg("-D").arg(&data);
        let server = Self::start(command, port, dir);
        answers(server.addr).await;
        server
    }

    /// MariaDB, in which `bob` has a password by the old method, `ann` by ed25519: `s3cret`.
    pub async fn mariadb() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        open_to_all(dir.path());
        let data = dir.path().join("data");
        let mut install = as_user("mysql", &find("mariadb-install-db").expect("mariadb-install-db"));
        install.args([
            "--no-defaults",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
        ]);
        install.arg(format!("--datadir={}", data.display()));
        let done = install.stdin(Stdio::null()).output().await.expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let port = crate::ports::free();
        let init = dir.path().join("init.sql");
        let sql = "INSTALL SONAME 'auth_ed25519';\nCREATE DATABASE shop;\n\
            CREATE USER bob@'%' IDENTIFIED BY 's3cret';\nGRANT ALL ON *.* TO bob@'%';\n\
            CREATE USER ann@'%' IDENTIFIED VIA ed25519 USING PASSWORD('s3cret');\nGRANT ALL ON *.* TO ann@'%';\n";
        std::fs::write(&init, sql).expect("a file");
        open_to_all(&init);
        let mut command = as_user("mysql", &find("mariadbd").expect("mariadbd"));
        command.args([
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--innodb-buffer-pool-size=16M",
        ]);
        command
            .arg(format!("--port={port}"))
            .arg(format!("--datadir={}", data.display()));
        command.arg(format!("--socket={}", dir.path().join("socket").display()));
        command.arg(format!("--init-file={}", init.display()));
        let server = Self::start(command, port, dir);
        answers(server.addr).await;
        server
    }

    /// Redis, with a password if one is given.
    pub async fn redis(password: Option<&str>) -> Self {
        let port = crate::ports::free();
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(find("redis-server").expect("redis-server"));
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
        command.arg("--dir").arg(dir.path());
        if let Some(password) = password {
            command.args(["--requirepass", password]);
        }
        let server = Self::start(command, port, dir);
        answers(server.addr).await;
        server
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("permissions");
}

/// A service that greets each connection with `hello\n` and then echoes it, to the end of what comes.
pub async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"hello\n").await?;
                let (mut rd, mut wr) = stream.split();
                tokio::io::copy(&mut rd, &mut wr).await?;
                wr.write_all(b"bye\n").await?;
                wr.shutdown().await?;
                // Whoever still writes is read, so that nothing is reset.
                let mut rest = Vec::new();
                rd.read_to_end(&mut rest).await
            });
        }
    });
    addr
}
