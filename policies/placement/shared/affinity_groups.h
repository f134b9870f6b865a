#pragma once
#include <vector>

#include "base/matrix.h"

namespace epsim {

/// Groups of experts that are often chosen together: [E] the group of each. GRACE's grouping: the rows of the top eigenvectors (as many as groups) of D^-1/2 A
/// D^-1/2, normalised, are clustered by k-means from farthest-first centres (at most 32 rounds; an empty cluster takes the row farthest from its centre),
/// experts then leave groups above `most` and join those below `least` where affinity suffers least, and at most 8 rounds swap pairs while affinity inside
/// groups rises. `affinity` [E][E] is symmetric, its diagonal is not read. Where there are as many groups as experts, or more, expert e is group e.
std::vector<int> group_by_affinity(const Matrix<std::int64_t>& affinity, int groups, int least, int most);

}  // namespace epsim
