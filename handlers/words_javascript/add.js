// Add up the counts of each word.
//
// /// mr
// handler_type = "reducer"
// required_capability = "none"
// ///

export function* handle(results, ctx) {
  for (const [word, counts] of results) {
    let sum = 0;
    for (const count of counts) sum += count;
    yield [word, sum];
  }
}
