import java.util.*;

public class Main {
    static <T extends Comparable<T>> T largest(List<T> items) {
        T best = items.get(0);
        for (T item : items) if (item.compareTo(best) > 0) best = item;
        return best;
    }

    static class Pair<A, B> {
        final A first; final B second;
        Pair(A first, B second) { this.first = first; this.second = second; }
        <C> Pair<A, C> with(C other) { return new Pair<>(first, other); }
    }

    public static void main(String[] args) {
        Map<String, List<Integer>> groups = new TreeMap<>();
        for (int i = 0; i < 10; i++) {
            String key = i % 3 == 0 ? "three" : "rest";
            if (!groups.containsKey(key)) groups.put(key, new ArrayList<>());
            groups.get(key).add(i);
        }
        Pair<String, Integer> p = new Pair<>("a", 1);
        System.out.println(groups + " " + largest(Arrays.asList(3, 10, 2)) + p.with('x').second);
    }
}
