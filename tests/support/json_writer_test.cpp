#include "support/json_writer.h"

#include <gtest/gtest.h>

namespace kiln {
namespace {

std::string quoted(std::string_view text) { return JsonWriter().value(text).text(); }

TEST(JsonWriter, PutsTheCommas) {
  JsonWriter json;
  json.begin_object().key("a").value(1).key("b").begin_array();
  json.value(-2).value(true).null().begin_array().end_array().value("x").end_array();
  json.key("c").begin_object().end_object().end_object();
  EXPECT_EQ(json.text(), R"({"a":1,"b":[-2,true,null,[],"x"],"c":{}})");
}

TEST(JsonWriter, Escapes) { EXPECT_EQ(quoted("a\"b\\c\n\x01"), R"("a\"b\\c\u000a\u0001")"); }

TEST(JsonWriter, KeepsUtf8) {
  EXPECT_EQ(quoted("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\xa5"),
            "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\xa5\"");
}

TEST(JsonWriter, ReplacesWhatIsNotUtf8) {
  const std::string replaced = "\"\xef\xbf\xbd\"";
  EXPECT_EQ(quoted("\x80"), replaced);
  EXPECT_EQ(quoted("\xc3"), replaced);
  EXPECT_EQ(quoted("\xff"), replaced);
  EXPECT_EQ(quoted("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");    // overlong
  EXPECT_EQ(quoted("\xed\xa0\x80").size(), 2 + 3 * 3u);             // a surrogate
  EXPECT_EQ(quoted("a\xe2\x82"), "\"a\xef\xbf\xbd\xef\xbf\xbd\"");  // cut short
}

}  // namespace
}  // namespace kiln
