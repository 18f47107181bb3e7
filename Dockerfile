# The server as an image. `docker compose up` builds it. To build and run it by itself:
#
#     docker build -t raybox .
#     docker run -p 6000:6000 -p 8080:6000 -v raybox:/var/lib/raybox raybox     # browsers refuse port 6000

# ---- Build. Dependencies are compiled apart from the sources, so that a change of the sources does not repeat it. ----

FROM rust:1.95.0-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY chat/Cargo.toml chat/
COPY client/Cargo.toml client/
COPY raybench/Cargo.toml raybench/
COPY net/Cargo.toml net/
COPY pool/Cargo.toml pool/
COPY testkit/Cargo.toml testkit/
# Lists the files of the web client, which are part of the server.
COPY build.rs ./
COPY web web
# The manifests name these, so they must exist, although they are not built.
COPY benches benches
COPY net/benches net/benches
COPY pool/benches pool/benches
# Empty sources with the same names stand in for the real ones; the results of building them are
# removed.
RUN mkdir -p src chat/src client/src raybench/src net/src pool/src testkit/src \
    && echo 'fn main() {}' | tee src/main.rs chat/src/main.rs > raybench/src/main.rs \
    && touch src/lib.rs client/src/lib.rs net/src/lib.rs pool/src/lib.rs testkit/src/lib.rs \
    && cargo build --release --locked --bin server \
    && cargo clean --release -p raybox -p net -p pool \
    && rm -r src net/src pool/src
COPY net/src net/src
COPY pool/src pool/src
COPY sql sql
COPY src src
RUN cargo build --release --locked --bin server && strip target/release/server

# ---- Run. ----

FROM debian:bookworm-20260824-slim
LABEL org.opencontainers.image.title="RayBox server" \
      org.opencontainers.image.description="Instant-messaging server with a web client: messages, groups and history on SQLite, or a cluster on MySQL and Redis" \
      org.opencontainers.image.version="1.0.0" \
      org.opencontainers.image.licenses="MIT"
# A published image also names the address of its sources:
# docker build --label org.opencontainers.image.source=ADDRESS
# Authorities of certificates, for ssl=verify and tls=on in mysql.cnf and redis.cnf.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
# Nothing runs as root. The server writes only here: data and logs. Both folders belong to the user,
# so volumes mounted there do too.
RUN groupadd --gid 10001 raybox && useradd --uid 10001 --gid raybox --no-create-home --shell /usr/sbin/nologin raybox \
    && install -d -o raybox -g raybox -m 750 /var/lib/raybox /var/log/raybox \
    && ln -s raybox-server /usr/local/bin/server
# `server` is the name in scripts for the C++ server.
COPY --from=build /build/target/release/server /usr/local/bin/raybox-server
COPY LICENSE THIRD-PARTY-LICENSES /usr/share/doc/raybox-server/
COPY --chmod=755 conf/docker/entrypoint.sh /usr/local/bin/entrypoint.sh
USER raybox
WORKDIR /var/lib/raybox
VOLUME ["/var/lib/raybox", "/var/log/raybox"]
ENV RAYBOX_ADMIN=127.0.0.1:9600
# The clients' port, and the admin port, which only this container reaches unless RAYBOX_ADMIN is another address.
EXPOSE 6000 9600
# SIGTERM closes the connections, drain_rate (1000) per second, and finishes what is in flight
# (drain_timeout, 10 s). Give the container more time than that to stop.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 CMD ["raybox-server", "health"]
ENTRYPOINT ["entrypoint.sh"]
CMD ["0.0.0.0", "6000"]
