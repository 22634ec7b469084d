// Add up the words of one mapper, so that less has to travel.
//
// /// mr
// handler_type = "combiner"
// required_capability = "none"
// ///

export function* handle(results, ctx) {
  const counts = new Map();
  for (const [word, count] of results) counts.set(word, (counts.get(word) ?? 0) + count);
  for (const [word, count] of counts) yield [word, [count]];
}
