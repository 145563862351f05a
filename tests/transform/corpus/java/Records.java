import java.util.List;

public class Main {
    record Point(int x, int y) {
        Point { if (x < 0) throw new IllegalArgumentException("x"); }
        int sum() { return x + y; }
        static Point origin() { return new Point(0, 0); }
    }

    static int far(List<Point> points) {
        int best = 0;
        int x = 0;
        for (Point p : points) {
            if (p.sum() > best) { best = p.sum(); x = p.x(); }
        }
        return best * 10 + x;
    }

    public static void main(String[] args) {
        var points = List.of(new Point(1, 2), new Point(3, 4), Point.origin());
        System.out.println(far(points) + " " + points.get(1));
        try { new Point(-1, 0); } catch (IllegalArgumentException e) { System.out.println(e.getMessage()); }
    }
}
