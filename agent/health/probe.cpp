// SPDX-License-Identifier: Apache-2.0
#include "agent/health/probe.h"

#include <boost/asio/post.hpp>

#include "agent/health/probe_kinds.h"

namespace mesh::health {

Probe::Probe(boost::asio::io_context& io, const catalog::HealthCheck& check,
             std::vector<Address> own, MakeSocket make_socket)
    : io_(io),
      check_(check),
      own_(std::move(own)),
      make_socket_(std::move(make_socket)),
      deadline_(io) {}

std::shared_ptr<Probe> Probe::make(boost::asio::io_context& io, const catalog::HealthCheck& check,
                                   std::vector<Address> own, MakeSocket make_socket) {
  switch (check.kind) {
    case catalog::CheckKind::Http:
      return std::make_shared<HttpProbe>(io, check, std::move(own), std::move(make_socket));
    case catalog::CheckKind::Grpc:
      return std::make_shared<GrpcProbe>(io, check, std::move(own), std::move(make_socket));
    case catalog::CheckKind::Tcp:
    case catalog::CheckKind::Ttl:
      break;
  }
  return std::make_shared<TcpProbe>(io, check, std::move(own), std::move(make_socket));
}

void Probe::start(Done done) {
  done_ = std::move(done);
  deadline_.expires_after(std::chrono::duration_cast<Clock::duration>(check_.timeout));
  deadline_.async_wait([self = shared_from_this()](boost::system::error_code code) {
    if (!code) self->finish(CheckStatus::Critical, "no answer in time");
  });
  boost::asio::post(io_, [self = shared_from_this()] {
    if (self->over()) return;
    auto target = parse_target(self->check_);
    if (!target) return self->finish(CheckStatus::Critical, target.error().what);
    self->open(*target);
  });
}

void Probe::cancel() {
  done_ = nullptr;
  deadline_.cancel();
  if (wire_) wire_->close();
}

void Probe::finish(CheckStatus status, std::string output) {
  if (!done_) return;
  const Done done = std::move(done_);
  cancel();
  done({status, std::move(output)});
}

void Probe::open(const Target& target) {
  if (wire_) wire_->close();
  target_ = target;
  const auto to = endpoint_of(target, own_);
  if (!to) return finish(CheckStatus::Critical, to.error().what);
  auto fd = make_socket_(*to);
  if (!fd) return finish(CheckStatus::Critical, fd.error().what);
  const int family = SockAddr(*to).family();
  if (target.tls) {
    TlsOptions tls;
    tls.verify = !check_.tls_skip_verify;
    tls.server_name = check_.tls_server_name.empty() ? target.host : check_.tls_server_name;
    tls.http2 = http2();
    wire_ = Wire::secure(io_, std::move(*fd), family, tls);
  } else {
    wire_ = Wire::plain(io_, std::move(*fd), family);
  }
  wire_->connect(*to, [self = shared_from_this()](const std::string& error) {
    if (self->over()) return;
    if (!error.empty())
      return self->finish(CheckStatus::Critical, authority(self->target_) + ": " + error);
    self->connected();
  });
}

}  // namespace mesh::health
