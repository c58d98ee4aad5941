//! The sample applications: `orders`, which serves, and clients that call it. Neither knows of TLS.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufStream,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::journal::PATIENCE;

/// The longest line that `orders` reads.
const MAX_LINE: u64 = 4096;
/// The header lines of a request that it skips.
const MAX_HEADERS: usize = 100;
/// Connections that it serves at once.
const MAX_CLIENTS: usize = 256;

/// Serves `orders`: answers each line with a line, and a browser or curl with a page. Runs until it is dropped.
pub(super) async fn serve_orders(listener: TcpListener) {
    static PLACES: Semaphore = Semaphore::const_new(MAX_CLIENTS);
    loop {
        let Ok(place) = PLACES.acquire().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    // A client that goes away is no concern of this application.
                    let _ = take_orders(stream).await;
                    drop(place);
                });
            }
            // Out of descriptors, most likely: others must end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn take_orders(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufStream::new(stream);
    let mut number = 0_u64;
    while let Some(line) = read_line(&mut stream).await? {
        if line.contains(" HTTP/1.") {
            return answer_http(&mut stream, &line).await;
        }
        number = number.saturating_add(1);
        stream
            .write_all(format!("order {number} taken: {line}\n").as_bytes())
            .await?;
        stream.flush().await?;
    }
    Ok(())
}

async fn answer_http(stream: &mut BufStream<TcpStream>, request: &str) -> io::Result<()> {
    for _ in 0..MAX_HEADERS {
        if read_line(stream).await?.is_none_or(|line| line.is_empty()) {
            break;
        }
    }
    let body = format!("orders here. You asked: {request}\n");
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// One line without its end; none at the end of the stream.
async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let length = stream.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    let text = String::from_utf8_lossy(&line);
    Ok((length > 0).then(|| text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// An application that calls another one: in plaintext, to an address on this machine.
#[derive(Debug)]
pub(super) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = in_time(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a line and reads one.
    pub(super) async fn ask(&mut self, line: &str) -> io::Result<String> {
        in_time(async {
            self.stream
                .get_mut()
                .write_all(format!("{line}\n").as_bytes())
                .await?;
            read_line(&mut self.stream)
                .await?
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
        .await
    }

    /// Sends a line to whoever will not answer, and reads what comes until the other side ends it.
    pub(super) async fn ask_in_vain(&mut self, line: &str) -> io::Result<Vec<u8>> {
        in_time(async {
            self.stream
                .get_mut()
                .write_all(format!("{line}\n").as_bytes())
                .await?;
            self.read_rest().await
        })
        .await
    }

    /// Reads until the other side ends the connection, and returns what still came.
    pub(super) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        in_time(self.read_rest()).await
    }

    async fn read_rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        (&mut self.stream).take(MAX_LINE).read_to_end(&mut rest).await?;
        Ok(rest)
    }
}

async fn in_time<T>(io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, io)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orders_answers_lines_and_requests() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve_orders(listener));
        let mut client = Client::connect(address).await.unwrap();
        assert_eq!(client.ask("one shirt").await.unwrap(), "order 1 taken: one shirt");
        assert_eq!(client.ask("two hats").await.unwrap(), "order 2 taken: two hats");
        let mut browser = Client::connect(address).await.unwrap();
        let answer = browser
            .ask_in_vain("GET / HTTP/1.1\r\nHost: x\r\n\r")
            .await
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\norders here. You asked: GET / HTTP/1.1\n"),
            "{answer}"
        );
        server.abort();
    }
}
