public class Main {
    interface Shape { int area(); default String name() { return "shape" + area(); } }
    static abstract class Base implements Shape {
        protected int scale = 2;
        public String toString() { return name() + "*" + scale; }
    }
    static class Square extends Base {
        private final int side;
        Square(int side) { super(); this.side = side; scale = 3; }
        public int area() { int area = side * side; return area; }
    }
    static class Named extends Square {
        Named(int side) { super(side + 1); }
        @Override public String name() { return "named" + super.name(); }
    }

    static int total(Shape... shapes) {
        int area = 0;
        for (Shape s : shapes) area += s.area();
        return area;
    }

    public static void main(String[] args) {
        Shape anonymous = new Shape() { public int area() { int scale = 5; return scale; } };
        System.out.println(new Square(3) + " " + new Named(1) + " " + anonymous.name());
        System.out.println(total(new Square(2), anonymous) + " " + total());
    }
}
