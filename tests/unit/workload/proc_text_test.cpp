// SPDX-License-Identifier: Apache-2.0
// The texts of /proc: what is a namespace, and what only looks like one.
#include "agent/workload/proc_text.h"

#include <gmock/gmock.h>

namespace mesh::workload {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(NetnsLink, ReadsTheInode) { EXPECT_EQ(parse_netns_link("net:[4026531840]"), 4026531840u); }

TEST(NetnsLink, RefusesEverythingElse) {
  for (const char* text :
       {"", "net:[]", "net:[0]", "net:[12", "net:12]", "mnt:[4026531840]", "net:[1x]", "net:[-1]",
        "net:[99999999999999999999999]", "net:[1] ", "xnet:[1]"})
    EXPECT_EQ(parse_netns_link(text), std::nullopt) << text;
}

TEST(NetnsMounts, PicksNetworkNamespacesOnly) {
  EXPECT_THAT(parse_netns_mounts(
                  "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
                  "40 30 0:4 net:[4026532201] /run/netns/blue rw shared:9 master:3 - nsfs nsfs rw\n"
                  "41 30 0:4 net:[4026532202] /run/netns/red rw - nsfs nsfs rw\n"
                  "42 30 0:4 mnt:[4026532203] /run/snapd/ns/a.mnt rw - nsfs nsfs rw\n"
                  "43 30 0:5 / /proc rw - proc proc rw\n"),
              ElementsAre(NetnsMount{4026532201, "/run/netns/blue"},
                          NetnsMount{4026532202, "/run/netns/red"}));
}

TEST(NetnsMounts, UnescapesThePath) {
  EXPECT_THAT(parse_netns_mounts(R"(40 30 0:4 net:[7] /run/a\040b\134c\011 rw - nsfs nsfs rw)"
                                 "\n"),
              ElementsAre(NetnsMount{7, "/run/a b\\c\t"}));
}

TEST(NetnsMounts, SourceNamedLikeTheTypeDoesNotCount) {
  EXPECT_THAT(parse_netns_mounts("40 30 0:4 net:[7] /x rw - tmpfs - nsfs rw\n"
                                 "41 30 0:4 / /y rw - nsfs nsfs rw\n"),
              IsEmpty());
}

TEST(NetnsMounts, IgnoresALineThatWasCut) {
  EXPECT_THAT(parse_netns_mounts("40 30 0:4 net:[7] /run/netns/blue rw - nsfs nsfs r"), IsEmpty());
}

TEST(NetnsMounts, SurvivesNonsense) {
  for (const char* text : {"", "\n\n", " - nsfs \n", "x - nsfs y\n", "1 2 3 net:[7] - nsfs nsfs\n",
                           "1 2 3 net:[7]\n - nsfs \n"})
    EXPECT_THAT(parse_netns_mounts(text), IsEmpty()) << text;
}

TEST(Printable, ReplacesWhatCouldForgeALogLine) {
  EXPECT_EQ(printable("nginx: worker"), "nginx: worker");
  EXPECT_EQ(printable("a\nb\x1b[0m\xff"), "a?b?[0m?");
}

}  // namespace
}  // namespace mesh::workload
