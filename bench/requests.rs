//! Handshakes, and plain requests beside tunnels.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::arguments::{Arguments, until_input_ends};
use crate::client::Target;
use crate::frame::{self, CLOSE};
use crate::stats::Times;

/// Opens and closes tunnels, one after the other on each client: for so long, or so many in all.
pub(crate) async fn handshakes(arguments: &Arguments) -> io::Result<()> {
    let target = Arc::new(Target::new(arguments.word(0)?, arguments.source()?)?);
    let time = Duration::from_secs_f64(arguments.setting("seconds", 1.0)?);
    let clients = arguments.setting("clients", 16)?;
    let count: usize = arguments.setting("count", usize::MAX)?;
    let begun = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (target, begun) = (Arc::clone(&target), Arc::clone(&begun));
            tokio::spawn(async move {
                let (mut times, mut failed) = (Times::default(), 0);
                while started.elapsed() < time && failed < 10 && begun.fetch_add(1, Relaxed) < count
                {
                    let began = Instant::now();
                    match open_and_close(&target, client).await {
                        Ok(()) => times.add(began.elapsed()),
                        Err(_) => failed += 1,
                    }
                }
                (times, failed)
            })
        })
        .collect();
    sum_up(tasks, started).await
}

async fn open_and_close(target: &Target, client: usize) -> io::Result<()> {
    let (mut stream, mut bytes) = target.open(client, "/echo").await?;
    let mut close = Vec::new();
    frame::put_header(&mut close, CLOSE, 0, Some([0; 4]));
    stream.write_all(&close).await?;
    // The back end answers the Close and ends first.
    while stream.read_buf(&mut bytes).await? > 0 {}
    let _ = stream.shutdown().await;
    let mut expected = Vec::new();
    frame::put_header(&mut expected, CLOSE, 0, None);
    if bytes == expected { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Plain GETs, one after the other on each client, each on a new connection: for so long, or until
/// standard input ends, where that is asked for.
pub(crate) async fn get(arguments: &Arguments) -> io::Result<()> {
    let target = Arc::new(Target::new(arguments.word(0)?, arguments.source()?)?);
    let time = Duration::from_secs_f64(arguments.setting("seconds", 1.0)?);
    let clients: usize = arguments.setting("clients", 1)?;
    let is_over = Arc::new(AtomicBool::new(false));
    if arguments.setting("until", String::new())? == "input" {
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            // Nobody is there any more, either way.
            let _ = until_input_ends().await;
            is_over.store(true, Relaxed);
        });
    }
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (target, is_over) = (Arc::clone(&target), Arc::clone(&is_over));
            tokio::spawn(async move {
                let (mut times, mut failed) = (Times::default(), 0);
                while started.elapsed() < time && !is_over.load(Relaxed) {
                    let begun = Instant::now();
                    match target.get(client + times.count()).await {
                        Ok(()) => times.add(begun.elapsed()),
                        Err(_) => failed += 1,
                    }
                }
                (times, failed)
            })
        })
        .collect();
    sum_up(tasks, started).await
}

/// Prints what all clients found.
async fn sum_up(tasks: Vec<JoinHandle<(Times, usize)>>, started: Instant) -> io::Result<()> {
    let (mut times, mut failed) = (Times::default(), 0);
    for task in tasks {
        let (mut more, fails) = task.await?;
        times.append(&mut more);
        failed += fails;
    }
    print(times, failed, started.elapsed());
    Ok(())
}

fn print(mut times: Times, failed: usize, elapsed: Duration) {
    let (count, seconds) = (times.count(), elapsed.as_secs_f64());
    println!(
        r#"{{"count": {count}, "failed": {failed}, "per_s": {:.1}, {}}}"#,
        count as f64 / seconds,
        times.json()
    );
}
