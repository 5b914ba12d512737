// SPDX-License-Identifier: Apache-2.0
// Which service definitions are accepted, and the exact place and words of every refusal.
#include "agent/catalog/service_definition.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

namespace mesh::catalog {
namespace {

struct Read {
  Definitions definitions;
  std::vector<std::string> errors;
};

Read read(std::string_view text) {
  Read result;
  syntax::ErrorList errors;
  read_service_definitions("f.json", text, result.definitions, errors);
  for (const auto& error : errors.take()) result.errors.push_back(error.to_string());
  return result;
}

const ServiceDefinition& only(const Read& result) {
  static const ServiceDefinition none;
  EXPECT_EQ(result.errors, std::vector<std::string>{});
  EXPECT_EQ(result.definitions.services.size(), 1u);
  return result.definitions.services.empty() ? none : result.definitions.services.front();
}

TEST(ServiceJson, BothSpellingsMeanTheSame) {
  auto lower = read(R"({"service": {"id": "web-1", "name": "web", "address": "10.0.0.7",
    "port": 8080, "protocol": "http", "tags": ["a", "b"], "meta": {"version": "v1"}}})");
  auto camel = read(R"({"Service": {"ID": "web-1", "Name": "web", "Address": "10.0.0.7",
    "Port": 8080, "Protocol": "http", "Tags": ["a", "b"], "Meta": {"version": "v1"}}})");
  const auto& a = only(lower);
  const auto& b = only(camel);
  EXPECT_EQ(a.instance, b.instance);
  EXPECT_EQ(a.name, "web");
  EXPECT_EQ(b.name, "web");
  EXPECT_EQ(a.protocol, Protocol::Http);
  EXPECT_EQ(b.protocol, Protocol::Http);
  EXPECT_EQ(a.instance.id, "web-1");
  EXPECT_EQ(a.instance.endpoint().to_string(), "10.0.0.7:8080");
  EXPECT_EQ(a.instance.details->tags, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(a.instance.details->meta, (std::map<std::string, std::string>{{"version", "v1"}}));
  EXPECT_EQ(
      only(read(R"({"service":{"Id":"x","name":"w","address":"fd00::1","port":1}})")).instance.id,
      "x");
}

TEST(ServiceJson, Defaults) {
  auto result = read(R"({"service": {"name": "web", "address": "fd00::7", "port": 65535}})");
  const auto& d = only(result);
  EXPECT_EQ(d.instance.id, "web");
  EXPECT_EQ(d.protocol, Protocol::Tcp);
  EXPECT_EQ(d.flags, ServiceFlags{});
  EXPECT_EQ(d.instance.endpoint().to_string(), "[fd00::7]:65535");
  EXPECT_TRUE(d.instance.details->tags.empty());
  EXPECT_TRUE(d.instance.details->meta.empty());
}

TEST(ServiceJson, AMappedAddressIsIpv4) {
  auto result = read(R"({"service": {"name": "w", "address": "::ffff:10.0.0.1", "port": 1}})");
  EXPECT_EQ(only(result).instance.endpoint().to_string(), "10.0.0.1:1");
}

TEST(ServiceJson, ServiceAndServicesAddUp) {
  auto result = read(R"({"services": [{"name":"a","address":"10.0.0.1","port":1},
    {"name":"b","address":"10.0.0.2","port":2}], "service": {"name":"c","address":"10.0.0.3","port":3}})");
  EXPECT_TRUE(result.errors.empty());
  EXPECT_EQ(result.definitions.services.size(), 3u);
  EXPECT_TRUE(read(R"({"services": []})").errors.empty());
}

TEST(ServiceJson, EveryProtocol) {
  for (auto protocol : {Protocol::Tcp, Protocol::Http, Protocol::Http2, Protocol::Grpc}) {
    auto result = read(
        fmt::format(R"({{"service":{{"name":"w","address":"10.0.0.1","port":1,"protocol":"{}"}}}})",
                    to_string(protocol)));
    EXPECT_EQ(only(result).protocol, protocol);
  }
}

ServiceFlags flags_of(std::string_view keys) {
  auto result =
      read(fmt::format(R"({{"service":{{"name":"w","address":"10.0.0.1","port":1,{}}}}})", keys));
  return only(result).flags;
}

TEST(ServiceJson, Switches) {
  EXPECT_EQ(flags_of(R"("meta":{"mesh-path":"twoleg"})"), (ServiceFlags{.twoleg = true}));
  EXPECT_EQ(flags_of(R"("path":"twoleg")"), (ServiceFlags{.twoleg = true}));
  EXPECT_EQ(flags_of(R"("Path":"twoleg")"), (ServiceFlags{.twoleg = true}));
  EXPECT_EQ(flags_of(R"("meta":{"mesh-acceleration":"sockmap"})"), (ServiceFlags{.sockmap = true}));
  EXPECT_EQ(flags_of(R"("meta":{"mesh-acceleration":"none"})"), ServiceFlags{});
  EXPECT_EQ(flags_of(R"("meta":{"mesh-inbound":"permissive"})"),
            (ServiceFlags{.permissive = true}));
  EXPECT_EQ(flags_of(R"("Meta":{"mesh-inbound":"strict","other":"x"})"), ServiceFlags{});
}

struct Bad {
  std::string_view text;
  std::vector<std::string> errors;
};

constexpr std::string_view kNameRule =
    "expected a name of 1 to 63 characters, a letter or digit first, then letters, digits, '-', "
    "'_' "
    "or '.', got ";
constexpr std::string_view kAddressRule =
    "expected the address of a workload (not loopback, unspecified, multicast or in 240.0.0.0/4), "
    "got ";
// One definition over several lines; `line` replaces the line that it begins like.
std::string definition(std::string_view line) {
  std::string out = "{\"service\": {\n";
  bool replaced = false;
  for (std::string_view usual :
       {"\"name\": \"web\"", "\"address\": \"10.0.0.7\"", "\"port\": 8080"}) {
    bool same = line.substr(0, line.find(':')) == usual.substr(0, usual.find(':'));
    out += fmt::format("  {},\n", same ? line : usual);
    replaced |= same;
  }
  if (replaced)
    out.resize(out.size() - 2);
  else
    out += fmt::format("  {}", line);
  return out + "\n}}\n";
}

TEST(ServiceJson, RefusesBadValuesWithTheirPlace) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {R"("name": "")", fmt::format("f.json:2:11: service.name: {}\"\"", kNameRule)},
      {R"("name": {})", "f.json:2:11: service.name: expected a string, got an object"},
      {R"("name": "-web")", fmt::format("f.json:2:11: service.name: {}\"-web\"", kNameRule)},
      {R"("name": "we b")", fmt::format("f.json:2:11: service.name: {}\"we b\"", kNameRule)},
      {R"("name": "w\u00e9b")", fmt::format("f.json:2:11: service.name: {}\"w\xc3\xa9"
                                            "b\"",
                                            kNameRule)},
      {R"("name": "a\nb")", fmt::format("f.json:2:11: service.name: {}\"a\\x0ab\"", kNameRule)},
      {R"("name": null)", "f.json:1:13: service: 'name' is required"},
      {R"("address": 10)",
       "f.json:3:14: service.address: expected an IP address (names are not resolved), got 10"},
      {R"("address": "db.local")",
       "f.json:3:14: service.address: expected an IP address (names are not resolved), got "
       "\"db.local\""},
      {R"("address": "10.0.0.7:80")",
       "f.json:3:14: service.address: expected an IP address (names are not resolved), got "
       "\"10.0.0.7:80\""},
      {R"("address": "10.0.0.256")",
       "f.json:3:14: service.address: expected an IP address (names are not resolved), got "
       "\"10.0.0.256\""},
      {R"("address": "")",
       "f.json:1:13: service: 'address' is required: the IP address of the workload; there is no "
       "node address to fall back on"},
      {R"("address": "fe80::1%eth0")",
       "f.json:3:14: service.address: expected an IP address (names are not resolved), got "
       "\"fe80::1%eth0\""},
      {R"("address": "127.0.0.1")",
       fmt::format("f.json:3:14: service.address: {}\"127.0.0.1\"", kAddressRule)},
      {R"("address": "0.0.0.0")",
       fmt::format("f.json:3:14: service.address: {}\"0.0.0.0\"", kAddressRule)},
      {R"("address": "::")", fmt::format("f.json:3:14: service.address: {}\"::\"", kAddressRule)},
      {R"("address": "::1")", fmt::format("f.json:3:14: service.address: {}\"::1\"", kAddressRule)},
      {R"("address": "224.0.0.1")",
       fmt::format("f.json:3:14: service.address: {}\"224.0.0.1\"", kAddressRule)},
      {R"("address": "ff02::1")",
       fmt::format("f.json:3:14: service.address: {}\"ff02::1\"", kAddressRule)},
      {R"("address": "240.0.0.1")",
       fmt::format("f.json:3:14: service.address: {}\"240.0.0.1\"", kAddressRule)},
      {R"("port": 0)", "f.json:4:11: service.port: expected an integer from 1 to 65535, got 0"},
      {R"("port": -1)", "f.json:4:11: service.port: expected an integer from 1 to 65535, got -1"},
      {R"("port": 65536)",
       "f.json:4:11: service.port: expected an integer from 1 to 65535, got 65536"},
      {R"("port": "80x")",
       "f.json:4:11: service.port: expected an integer from 1 to 65535, got \"80x\""},
      {R"("port": 80.5)",
       "f.json:4:11: service.port: expected an integer from 1 to 65535, got 80.5"},
      {R"("port": 18446744073709551617)",
       "f.json:4:11: service.port: expected an integer from 1 to 65535, got "
       "1.8446744073709552e+19"},
      {R"("port": [80, 81])",
       "f.json:4:11: service.port: expected an integer from 1 to 65535, got an array"},
      {R"("ID": "a\u0007")",
       "f.json:5:9: service.ID: expected a string of 1 to 255 bytes without control characters, "
       "got \"a\\x07\""},
      {R"("protocol": "udp")",
       "f.json:5:15: service.protocol: expected \"tcp\", \"http\", \"http2\" or \"grpc\", got "
       "\"udp\""},
      {R"("protocol": "HTTP")",
       "f.json:5:15: service.protocol: expected \"tcp\", \"http\", \"http2\" or \"grpc\", got "
       "\"HTTP\""},
      {R"("protocol": true)",
       "f.json:5:15: service.protocol: expected \"tcp\", \"http\", \"http2\" or \"grpc\", got "
       "true"},
      {R"("tags": ["a", {}, ""])",
       "f.json:5:17: service.tags[1]: expected a string, got an object"},
      {R"("tags": ["a", ""])",
       "f.json:5:17: service.tags[1]: expected a string of 1 to 255 bytes without control "
       "characters, got \"\""},
      {R"("meta": 5)", "f.json:5:11: service.meta: expected an object, got 5"},
      {R"("meta": {"a": {}})", "f.json:5:17: service.meta.a: expected a string, got an object"},
      {R"("meta": {"a b": "1"})",
       "f.json:5:12: service.meta.a b: expected a key of 1 to 128 letters, digits, '-' or '_'"},
      {R"("meta": {"": "1"})",
       "f.json:5:12: service.meta.: expected a key of 1 to 128 letters, digits, '-' or '_'"},
      {R"("meta": {"a": "1", "a": "2"})",
       "f.json:5:22: service.meta.a: given twice, first at line 5 column 12"},
      {R"("meta": {"mesh-speed": "fast"})",
       "f.json:5:12: service.meta.mesh-speed: unknown switch: expected mesh-path, "
       "mesh-acceleration "
       "or mesh-inbound"},
      {R"("meta": {"mesh-path": "direct"})",
       "f.json:5:25: service.meta.mesh-path: expected \"twoleg\" (leave the key out for the "
       "default), got \"direct\""},
      {R"("path": "")",
       "f.json:5:11: service.path: expected \"twoleg\" (leave the key out for the default), got "
       "\"\""},
      {R"("meta": {"mesh-acceleration": "on"})",
       "f.json:5:33: service.meta.mesh-acceleration: expected \"sockmap\" or \"none\", got \"on\""},
      {R"("Meta": {"mesh-inbound": "open"})",
       "f.json:5:28: service.Meta.mesh-inbound: expected \"permissive\" or \"strict\", got "
       "\"open\""},
      {R"("path": "twoleg", "meta": {"mesh-path": "twoleg"})",
       "f.json:5:11: service.path: given twice: as 'path' and as 'mesh-path' in meta"},
      {R"("Port": 81)", "f.json:5:3: service.Port: given twice, first at line 4 column 3"},
      {R"("PORT": 80)", "f.json:5:3: service.PORT: given twice, first at line 4 column 3"},
      {R"("prot": "tcp")", "f.json:5:3: service.prot: unknown key: did you mean Port?"},
      {R"("": 80)", "f.json:5:3: service.: unknown key"},
  };
  for (const auto& [line, expected] : table) {
    auto result = read(definition(line));
    std::string joined;
    for (const auto& error : result.errors) joined += (joined.empty() ? "" : "|") + error;
    EXPECT_EQ(joined, expected) << definition(line);
    EXPECT_TRUE(result.definitions.services.empty()) << line;
  }
}

TEST(ServiceJson, RefusesBadShapes) {
  const std::vector<Bad> table = {
      {"[]",
       {"f.json:1:1: expected an object with 'service', 'services', 'node' or 'nodes', got an "
        "array"}},
      {"{}", {"f.json:1:1: expected 'service', 'services', 'node' or 'nodes'"}},
      {"\n {\"svc\": {}}",
       {"f.json:2:3: svc: unknown key: expected one of Service, Services, Node, Nodes"}},
      {"{\"service\": []}", {}},
      {"{\"services\": 5}",
       {"f.json:1:14: services: expected a service definition (an object), got 5"}},
      {"{\"services\": [\n 1]}",
       {"f.json:2:2: services[0]: expected a service definition (an object), got 1"}},
      {"{\"services\": [], \"Services\": []}",
       {"f.json:1:18: Services: given twice, first at line 1 column 2"}},
      {"{\"service\": {}}",
       {"f.json:1:13: service: 'name' is required",
        "f.json:1:13: service: 'address' is required: the IP address of the workload; there is no "
        "node address to fall back on",
        "f.json:1:13: service: 'port' is required"}},
      {"{\"service\": {\n",
       {"f.json:2:1: not valid JSON: syntax error while parsing object key - "
        "unexpected end of input; expected string literal"}},
  };
  for (const auto& row : table) EXPECT_EQ(read(row.text).errors, row.errors) << row.text;
}

TEST(ServiceJson, ListsEveryErrorOfAFileAndKeepsTheGoodDefinitions) {
  auto result = read(
      "{\"services\": [\r\n"
      "  {\"name\": \"a\", \"address\": \"10.0.0.1\", \"port\": 0},\r\n"
      "  {\"name\": \"b\", \"address\": \"10.0.0.2\", \"port\": 1},\r\n"
      "  {\"name\": \"c\", \"addres\": \"10.0.0.3\", \"port\": 1}\r\n"
      "]}\r\n");
  EXPECT_EQ(result.errors,
            (std::vector<std::string>{
                "f.json:2:48: services[0].port: expected an integer from 1 to 65535, got 0",
                "f.json:4:3: services[2]: 'address' is required: the IP address of the workload; "
                "there is no node address to fall back on",
                "f.json:4:17: services[2].addres: unknown key: did you mean Address?"}));
  ASSERT_EQ(result.definitions.services.size(), 1u);
  EXPECT_EQ(result.definitions.services[0].name, "b");
  EXPECT_EQ(result.definitions.services[0].address_at, (syntax::Position{3, 28}));
}

TEST(ServiceJson, CountsErrorsBeyondTheBound) {
  std::string text = "{\"services\": [";
  for (int i = 0; i < 60; ++i) text += i == 0 ? "1" : ",1";
  auto result = read(text + "]}");
  ASSERT_EQ(result.errors.size(), syntax::ErrorList::kMaxErrors + 1);
  EXPECT_EQ(result.errors.back(), "and 10 more errors");
}

TEST(ServiceJson, NamesAndLengthLimits) {
  EXPECT_TRUE(is_service_name("a"));
  EXPECT_TRUE(is_service_name("0.a-b_C"));
  EXPECT_TRUE(is_service_name(std::string(63, 'a')));
  EXPECT_FALSE(is_service_name(std::string(64, 'a')));
  for (auto bad : {"", ".a", "_a", "a/b", "a:b", "a b"}) EXPECT_FALSE(is_service_name(bad)) << bad;

  auto with = [](std::string_view keys) {
    return read(fmt::format(R"({{"service":{{"name":"w","address":"10.0.0.1","port":1,{}}}}})",
                            keys))
        .errors.size();
  };
  EXPECT_EQ(with(fmt::format("\"id\":\"{}\"", std::string(255, 'x'))), 0u);
  EXPECT_EQ(with(fmt::format("\"id\":\"{}\"", std::string(256, 'x'))), 1u);
  EXPECT_EQ(with(fmt::format("\"tags\":[\"{}\"]", std::string(255, 'x'))), 0u);
  EXPECT_EQ(with(fmt::format("\"tags\":[\"{}\"]", std::string(256, 'x'))), 1u);
  EXPECT_EQ(
      with(fmt::format("\"meta\":{{\"{}\":\"{}\"}}", std::string(128, 'k'), std::string(512, 'v'))),
      0u);
  EXPECT_EQ(with(fmt::format("\"meta\":{{\"{}\":\"\"}}", std::string(129, 'k'))), 1u);
  EXPECT_EQ(with(fmt::format("\"meta\":{{\"k\":\"{}\"}}", std::string(513, 'v'))), 1u);
  auto many = [](std::string_view format, int count) {
    std::string out;
    for (int i = 0; i < count; ++i)
      out += (i == 0 ? "" : ",") + fmt::format(fmt::runtime(format), i);
    return out;
  };
  EXPECT_EQ(with("\"tags\":[" + many("\"t{}\"", 64) + "]"), 0u);
  EXPECT_EQ(with("\"tags\":[" + many("\"t{}\"", 65) + "]"), 1u);
  EXPECT_EQ(with("\"meta\":{" + many("\"k{}\":\"\"", 64) + "}"), 0u);
  EXPECT_EQ(with("\"meta\":{" + many("\"k{}\":\"\"", 65) + "}"), 1u);
}

TEST(ServiceJson, HostileTextInAMessageIsShortAndPrintable) {
  auto result = read("{\"service\": {\"name\": \"" + std::string(5000, 'x') +
                     "\", \"address\": \"10.0.0.1\", \"port\": 1, \"a\\u001b[31m\\n" +
                     std::string(5000, 'k') + "\": 1}}");
  ASSERT_EQ(result.errors.size(), 2u);
  for (const auto& error : result.errors) {
    EXPECT_LT(error.size(), 400u);
    EXPECT_EQ(error.find('\x1b'), std::string::npos);
    EXPECT_EQ(error.find('\n'), std::string::npos);
  }
}

}  // namespace
}  // namespace mesh::catalog
