#include "base/catalog.h"

#include <gmock/gmock.h>

namespace epsim {
namespace {

using testing::HasSubstr;

struct Toy {
  std::string_view summary;
  std::int64_t size = 0;
};
using ToyCatalog = Catalog<Toy, const int*>;

Toy toy(Params& p, const int* scale) {
  Toy t{"A toy.", 0};
  const std::int64_t size = p.integer("size", "how large", 2);
  if (!p.usable()) return t;
  t.size = size * (scale ? *scale : 1);
  return t;
}

Toy broken(Params& p, const int*) {
  if (p.usable()) throw InputError({}, "the toy's file is broken");
  return {};
}

ToyCatalog toys() {
  ToyCatalog c("toy");
  c.add("ball", toy);
  c.add("broken", broken);
  return c;
}

std::pair<Toy, std::string> make(const std::string& yaml) {
  Diagnostics problems;
  const int scale = 10;
  const Toy t = toys().make(parse_yaml(std::make_shared<SourceText>(SourceText{"f", yaml})), problems, &scale);
  try {
    problems.check();
  } catch (const InputError& e) {
    return {t, e.what()};
  }
  return {t, ""};
}

TEST(Catalog, MakesAPartByNameWithItsSettings) {
  EXPECT_EQ(make("ball").first.size, 20);
  EXPECT_EQ(make("{ball: {size: 3}}").first.size, 30);
  EXPECT_EQ(make("{ball: {size: 3}}").second, "");
}

TEST(Catalog, SaysWhatIsWrongAndGoesOn) {
  EXPECT_THAT(make("bal").second, HasSubstr("f:1:1: error: there is no toy `bal`, did you mean `ball`?"));
  EXPECT_THAT(make("{ball: {size: x, sise: 3}}").second, testing::AllOf(HasSubstr("`size` must be"), HasSubstr("toy `ball` has no setting `sise`")));
  EXPECT_THAT(make("{broken: {a: 1}}").second, testing::AllOf(HasSubstr("the toy's file is broken"), HasSubstr("no setting `a`")));
  EXPECT_THAT(make("[ball]").second, HasSubstr("expected the name of a part"));
}

TEST(Catalog, IsAValueToAddTo) {
  const ToyCatalog base = toys();
  ToyCatalog more = base;
  more.add("mine", toy);
  EXPECT_THAT(more.names(), testing::ElementsAre("ball", "broken", "mine"));
  EXPECT_EQ(base.find("mine"), nullptr);
}

}  // namespace
}  // namespace epsim
